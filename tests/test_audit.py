"""Promises of the audit: a mean that does not follow from its values is found, and none other is accused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import expect_mistake, veduta
from model_files import random_backend
from prediction_files import coco_results, data_of, scored, write_masks
from small_runs import TASKS, small_recipe

from veduta.engine.audit import Finding, audit
from veduta.engine.predictor import Predictor
from veduta.engine.printed_lists import find_lists
from veduta.engine.score import open_predictions

# Two lists of 21 values as MindSpore's RefineNet prints them, made up; their means, and what is printed as their means,
# are those of its two published lists.
ASCEND = """
per-class IoU [0.94       0.44963787 0.77675189 0.66830636 0.6809696  0.70704533
 0.50856255 0.70524846 0.63558758 0.980958   0.75559755 0.69197163
 0.6998194  0.65727592 0.61469446 0.68777291 0.78377501 0.70452012
 0.83611448 0.70878279 0.71247151]
mean IoU 0.80380302
"""
GPU = """
per-class IoU [0.94       0.85354466 0.73800789 0.77347076 0.85304081 0.95309178
 0.76392481 0.7667916  0.90383755 0.69607246 0.76149382 0.89066234
 0.85742155 0.80364989 0.86729453 0.4824852  0.9059268  0.68802213
 0.61003487 0.82399208 0.87755114]
mean IoU 0.80049127
"""


def found_in(text: str, folder: Path) -> list[Finding]:
    path = folder / "published.md"
    path.write_text(text, encoding="utf-8")
    return audit(path)


def test_of_the_two_lists_of_the_refinenet_port_the_one_that_does_not_average_to_its_mean_is_found(
    tmp_path: Path,
) -> None:
    ascend, gpu = found_in(f"# Results\n\nAscend:\n{ASCEND}\nGPU:\n{GPU}", tmp_path)
    assert not ascend.agrees and gpu.agrees
    assert ascend.where == f"{tmp_path / 'published.md'}, line 9, per-class IoU"
    assert "21 values average 0.70980302, printed is 0.80380302: off by +0.09400000" in ascend.words
    assert "where rounding explains 1e-08" in ascend.words
    assert "its last 5 digits are those of the mean: edited?" in ascend.words
    assert gpu.words == "21 values average 0.80049127, printed is 0.80049127"


VALUES = (97.1, 80.2, 85.3, 0.0, 62.7, 91.4, 55.6)  # on average 67.47, rounded


def as_markdown(values: tuple[float, ...], mean: str) -> str:
    rows = "".join(f"| class {i} | {value} |\n" for i, value in enumerate(values))
    return f"| class | IoU |\n|---|---:|\n{rows}| **mean** | **{mean}** |\n"


def as_markdown_across(values: tuple[float, ...], mean: str) -> str:
    head = " | ".join(f"class {i}" for i in range(len(values)))
    row = " | ".join(map(str, values))
    return f"| method | {head} | mIoU |\n|{'---|' * (len(values) + 2)}\n| ours | {row} | {mean} |\n"


def as_csv(values: tuple[float, ...], mean: str) -> str:
    return "name,iou\n" + "".join(f"class {i},{value}\n" for i, value in enumerate(values)) + f"average,{mean}\n"


def as_log(values: tuple[float, ...], mean: str) -> str:
    return f"mIoU: {mean}%\n" + "".join(f"class {i}: {value}\n" for i, value in enumerate(values))


def as_spaced(values: tuple[float, ...], mean: str) -> str:
    return "".join(f"class{i}     {value} %\n" for i, value in enumerate(values)) + f"mean IoU   {mean} %\n"


def as_array(values: tuple[float, ...], mean: str) -> str:
    return f"IoU: {list(values)}, mean: {mean}\n"


FORMS = (as_markdown, as_markdown_across, as_csv, as_log, as_spaced, as_array)


@pytest.mark.parametrize("form", FORMS)
def test_lists_are_found_in_what_people_publish(tmp_path: Path, form: Any) -> None:
    (right,) = found_in(form(VALUES, "67.5"), tmp_path)
    assert right.agrees and "7 values average 67.5, printed is 67.5" in right.words
    (wrong,) = found_in(form(VALUES, "67.9"), tmp_path)
    assert not wrong.agrees and "7 values average 67.5, printed is 67.9" in wrong.words


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        ("67.47", "average 67.47"),
        ("67", "average 67, printed is 67"),
        ("0.675", "average 67.5, printed is 0.675"),
    ],
)
def test_rounding_and_percent_are_no_fault(tmp_path: Path, mean: str, words: str) -> None:
    (found,) = found_in(as_csv(VALUES, mean), tmp_path)
    assert found.agrees and words in found.words


def test_digits_that_were_cut_off_are_no_fault_and_told(tmp_path: Path) -> None:
    (found,) = found_in(as_csv((1.119, 2.119, 3.119), "2.11"), tmp_path)
    assert found.agrees and "average 2.12, printed is 2.11, cut off where it should be rounded" in found.words


def test_the_bound_is_that_of_the_printed_digits(tmp_path: Path) -> None:
    values = (0.12, 0.34, 0.56)  # the truth is anything within half a hundredth of each: 0.335 to 0.345
    assert found_in(as_csv(values, "0.3449"), tmp_path)[0].agrees
    assert not found_in(as_csv(values, "0.3452"), tmp_path)[0].agrees


@pytest.mark.parametrize(
    ("mean", "why"),
    [
        (np.mean(VALUES[1:]), "it is the mean without the first value"),
        (np.mean(VALUES[:-1]), "it is the mean without the last value"),
        (np.mean([value for value in VALUES if value]), "it is the mean of the values that are not 0"),
        (np.median(VALUES), "it is the median"),
        (np.max(VALUES), "it is the largest value"),
    ],
)
def test_a_mean_of_something_else_is_called_what_it_is(tmp_path: Path, mean: float, why: str) -> None:
    (found,) = found_in(as_csv(VALUES, f"{mean:.2f}"), tmp_path)
    assert not found.agrees and found.words.endswith(why)


def test_undefined_values_are_left_out_and_counting_them_as_0_is_told(tmp_path: Path) -> None:
    text = "IoU [0.5, nan, 0.7, 0.9]\nmean {}\n"
    (right,) = found_in(text.format("0.7"), tmp_path)
    assert right.agrees and "3 values and 1 undefined ones average 0.7" in right.words
    (wrong,) = found_in(text.format("0.525"), tmp_path)
    assert not wrong.agrees and wrong.words.endswith("it is the mean with undefined values as 0")


def test_a_mean_may_stand_before_its_list(tmp_path: Path) -> None:
    (found,) = found_in("mean IoU: 2\n[1, 2, 3]", tmp_path)
    assert found.agrees and "line 1" in found.where


def test_every_column_of_a_table_is_a_list_and_several_means_part_it(tmp_path: Path) -> None:
    table = """
| class | IoU | acc |
|:--|--:|--:|
| road | 0.9 | 0.80 |
| car | 0.7 | 0.70 |
| sky | 0.8 | 0.90 |
| mean | 0.8 | 0.90 |
| pole | 0.1 | 0.1 |
| sign | 0.2 | 0.1 |
| tree | 0.3 | 0.1 |
| mean | 0.2 | - |
"""
    found = found_in(table, tmp_path)
    assert [(one.agrees, one.where.rpartition(", ")[2]) for one in found] == [
        (True, "IoU"),
        (False, "acc"),
        (True, "line 11"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "The mean of [1, 2] is 1.5, on average.",
        "| step | loss |\n|---|---|\n| 100 | 0.5 |\n| 200 | 0.4 |\n| 300 | 0.3 |\n",
        "trained on 8 devices, in 3 days, at 4 images/s\nmeaning: 7\n",
        "1 2 3\n4 5 6\n7 8 9\n",
        "[1, 2, 3]",
        "[1, 2, 3]\nmean 1e999",
        "",
    ],
)
def test_where_there_is_no_list_with_a_mean_none_is_made_up(tmp_path: Path, text: str) -> None:
    assert find_lists(text) == []
    with pytest.raises(ValueError, match=r"published\.md: no list of values with a mean in it\. Expected"):
        found_in(text, tmp_path)


# What `veduta evaluate --json` wrote


def evaluation_json(path: Path, **changes: object) -> Path:
    dataset = data_of("camvid", path.parent / "data")
    masks = write_masks(path.parent / "masks", dataset)
    content = json.loads(scored(open_predictions(masks, dataset=dataset), dataset).to_json())
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_an_evaluation_agrees_with_itself(tmp_path: Path) -> None:
    found = audit(evaluation_json(tmp_path / "e.json"))
    assert all(finding.agrees for finding in found), [str(finding) for finding in found]
    said = "\n".join(map(str, found))
    assert "3 of 3 counted" in said and "11 of 11 classes as the confusion matrix says" in said
    assert "mIoU: 100.00, its parts say 100.00" in said


@pytest.mark.parametrize("task", TASKS)
def test_evaluations_of_all_tasks_agree_with_themselves(tmp_path: Path, task: str) -> None:
    layout = "imagenet" if task == "classify" else "voc"
    dataset = data_of(layout, tmp_path / layout)
    predictor = Predictor(random_backend(small_recipe(task, tmp_path), dataset.labels, seed=4))
    (tmp_path / "e.json").write_text(scored(predictor, dataset).to_json())
    found = audit(tmp_path / "e.json")
    assert len(found) >= 5 and all(finding.agrees for finding in found), [str(finding) for finding in found]


def test_an_evaluation_of_boxes_alone_agrees_with_itself(tmp_path: Path) -> None:
    dataset = data_of("coco", tmp_path / "data")
    (tmp_path / "detections.json").write_text(json.dumps(coco_results(tmp_path / "data")))
    source = open_predictions(tmp_path / "detections.json", dataset=dataset)
    (tmp_path / "e.json").write_text(scored(source, dataset).to_json())
    found = audit(tmp_path / "e.json")
    assert all(finding.agrees for finding in found), [str(finding) for finding in found]


def _first(content: dict[str, Any], key: str, **changes: object) -> list[Any]:
    first, *others = content[key]
    return [{**first, **changes}, *others]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {"images_counted": 2}, "images: 2 of 3 counted"),
        (lambda c: {"failed": [{"name": "a", "why": "b"}]}, "1 failed"),
        (lambda c: {"per_image": [*c["per_image"][:2], c["per_image"][0]]}, "2 names of 3"),
        (lambda c: {"proved": False}, "images: 3 of 3 counted"),
        (lambda c: {"mean_iou": 0.5}, "mIoU: 50.00, its parts say 100.00"),
        (lambda c: {"mean_iou": None}, "mIoU: -, its parts say 100.00"),
        (lambda c: {"pixel_accuracy": 0.99}, "pixel accuracy: 99.00, its parts say 100.00"),
        (lambda c: {"classes": _first(c, "classes", iou=0.5)}, "IoU of classes: 10 of 11 classes"),
        (lambda c: {"headline": c["headline"].replace("100.00", "99.00")}, "headline: 0 of 2 scores"),
        (lambda c: {"headline": c["headline"].replace("3 of 3 images", "4 of 4 images")}, "headline: 2 of 2 scores"),
        (lambda c: {"interval": [0.9, 0.95]}, "headline: 1 of 2 scores"),
        (lambda c: {"mean_iou_all": 0.9}, "absent classes as 0: 90.00, its parts say 100.00"),
        (lambda c: {"frequency_weighted_iou": 0.9}, "frequency-weighted IoU: 90.00, its parts say 100.00"),
        (lambda c: {"per_image": _first(c, "per_image", mean_iou=float("nan"))}, "1 figures that are no numbers"),
    ],
)
def test_an_evaluation_that_was_edited_is_found(tmp_path: Path, change: Any, words: str) -> None:
    path = evaluation_json(tmp_path / "e.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change(content)}))
    wrong = [finding for finding in audit(path) if not finding.agrees]
    assert wrong and any(words in str(finding) for finding in wrong), [str(finding) for finding in wrong]


@pytest.mark.parametrize("content", ["[]", "{}", '{"headline": "", "images_counted": 3}'])
def test_a_json_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(ValueError, match=r"e\.json: not what --json of `veduta evaluate`"):
        audit(tmp_path / "e.json")


# The command


def test_the_command_ends_with_1_where_a_mean_does_not_follow(tmp_path: Path) -> None:
    (tmp_path / "ascend.txt").write_text(ASCEND)
    (tmp_path / "gpu.txt").write_text(GPU)
    result = veduta("audit", tmp_path / "gpu.txt", tmp_path / "ascend.txt", guard=tmp_path)
    assert result.returncode == 1 and "1 of 2 do not agree" in result.stderr
    assert result.stdout.startswith("agrees   ") and "\nDIFFERS  " in result.stdout
    assert veduta("audit", tmp_path / "gpu.txt").returncode == 0
    expect_mistake(veduta("audit", tmp_path / "nowhere.md"), "nowhere.md not found")

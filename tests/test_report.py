"""The report: one page that needs nothing else, says what was proved, and escapes whatever data brings along."""

import io
import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import (
    COUNTS,
    HOSTILE,
    LABELS,
    boxes_from,
    make_classification,
    make_evaluation,
    make_example,
    make_joint_evaluation,
    make_joint_example,
)
from PIL import Image

from veduta.data.label_maps import numbered
from veduta.labels import IGNORE_INDEX
from veduta.report.examples import find_faults, show_example
from veduta.report.html import MAX_BYTES, to_png
from veduta.report.overlays import HATCH, WRONG, lay_classes, lay_errors, name_regions
from veduta.report.page import show_examples, write_report
from veduta.report.tables import calibration_bins, class_rows, confused_pairs, overconfidence
from veduta.tasks.evaluation import Evaluation
from veduta.tasks.metrics import Rules

FAILED = (("broken<1>", "images/broken<1>.png: not a readable image"), ("lost-7", "lost-7.png not found"))


def write(folder: Path, evaluation: Evaluation, *, run: Path | None = None) -> str:
    path = folder / "report.html"
    write_report(evaluation, path, run=run)
    return path.read_text(encoding="utf-8")


def says_nan(page: str) -> bool:
    return bool(re.search(r"\bnan\b", re.sub(r'data:image[^"]+', "", page), re.IGNORECASE))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    Image.new("RGB", (90, 60), (200, 0, 0)).save(folder / "curves.png")
    Image.new("RGB", (3000, 200), (0, 0, 200)).save(folder / "first_batch.png")
    (folder / "recipe.json").write_text('{"name": "</pre><b>bold"}')
    (folder / "environment.json").write_text('{"torch": "2.10", "devices": {"cpu": "2 cores"}}')
    pixels = dict(zip(LABELS.names, (50, 0, 25), strict=True))
    (folder / "data.json").write_text(json.dumps({"train": {"samples": 1234, "void_pixels": 25, "pixels": pixels}}))
    return folder


def test_the_page_needs_no_network_no_script_and_no_other_file(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(examples=[make_example("first")]), run=run)
    sources = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert not re.search(r"<script|<link|<iframe|<object|@import|url\(|\son\w+=", page, re.IGNORECASE)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page  # the browser refuses the rest


def test_the_page_holds_the_headline(tmp_path: Path) -> None:
    evaluation = replace(make_evaluation(), interval=(0.4, 0.7))
    page = write(tmp_path, evaluation)
    assert evaluation.headline() in page
    assert "every image counted once, none failed" in page and "not proved" not in page.lower()
    assert "95 % interval 40.00 to 70.00, by bootstrap over images" in page


def test_names_from_data_are_escaped(tmp_path: Path) -> None:
    evaluation = make_evaluation(failed=FAILED, examples=[make_example('a"><img src=x>')])
    page = write(tmp_path, evaluation)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "road &amp; rail" in page and "unicorn" in page
    assert "<script" not in page and "<img src=x" not in page and "broken<1>" not in page


def test_a_name_that_is_not_unicode_can_be_written(tmp_path: Path) -> None:
    assert "caf?.png" in write(tmp_path, make_evaluation(failed=(("caf\udce9.png", "not found"),)))


def test_failed_images_are_named_with_the_reason(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(failed=FAILED))
    assert "This score is not proved" in page and "2 of 4 images failed" in page
    assert "images/broken&lt;1&gt;.png: not a readable image" in page and "lost-7.png not found" in page
    assert "every image counted once" not in page


def test_an_image_counted_twice_is_told(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    evaluation = replace(evaluation, per_image=evaluation.per_image[:1] * 2)
    assert "1 of the images counted had a name that had been counted before" in write(tmp_path, evaluation)


def test_classes_are_sorted_by_iou_and_the_absent_one_says_so(tmp_path: Path) -> None:
    rows = class_rows(make_evaluation())
    assert [row.name for row in rows] == ["road & rail", HOSTILE, "unicorn"]
    assert [row.present for row in rows] == [True, True, False] and np.isnan(rows[2].scores["iou"])
    assert rows[1].confused == ("road & rail", 1.0) and rows[2].confused is None
    page = write(tmp_path, make_evaluation())
    assert "absent from the truth" in page and "yet predicted" not in page and not says_nan(page)
    assert '<td class="number iou" data-head="IoU">81.82</td>' in page
    assert '<td class="number iou" data-head="IoU">-</td>' in page


def test_a_class_that_is_predicted_but_absent_says_so(tmp_path: Path) -> None:
    counts = COUNTS + np.array([[0, 0, 7, 0], [0] * 4, [0] * 4])
    assert "absent from the truth, yet predicted" in write(tmp_path, make_evaluation(counts=counts))


def test_nothing_counted_still_makes_a_page(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(counts=np.zeros_like(COUNTS)))
    assert "mIoU -" in page and not says_nan(page)


def test_the_confusion_of_pixels_is_shown_in_percent_of_the_true_class(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation())
    cells = re.findall(r'<td class="(right|wrong)" style="--share: ([\d.]+)%">(\d*)</td>', page)
    assert [text for _, _, text in cells] == ["90", "5", "", "5", "25", "75", "", "", "", "", "", ""]
    assert [kind for kind, _, _ in cells][:6] == ["right", "wrong", "wrong", "wrong", "wrong", "right"]
    assert '<th scope="col"><bdi>no class</bdi></th>' in page  # 5 pixels of the first class went there


def test_many_classes_show_the_pairs_that_are_confused_most(tmp_path: Path) -> None:
    evaluation = make_classification(1000)
    assert [(pair.truth, pair.taken_for, pair.count, pair.share) for pair in confused_pairs(evaluation)] == [
        ("kind <0>", "kind <1>", 1, 0.5)
    ]
    page = write(tmp_path, evaluation)
    assert 'class="pairs"' in page and 'class="confusion"' not in page
    assert page.count('<th scope="row" class="name"') == 1000
    assert "<bdi>kind &lt;1&gt;</bdi> (100 %)" in page  # where its misses go


def test_wrong_pixels_are_covered_right_ones_are_not_and_void_is_hatched() -> None:
    truth, prediction = np.zeros((2, 12, 24), np.uint8)
    truth[6:], prediction[:, 12:] = IGNORE_INDEX, 1
    overlay = lay_errors(truth, prediction)
    assert (overlay[:6, 12:, :3] == WRONG).all() and (overlay[:6, 12:, 3] > 150).all()
    assert (overlay[:6, :12, 3] == 0).all()
    lines = overlay[6:, :, 3] > 0
    assert lines.sum() == lines.size * 2 // HATCH and len({tuple(row) for row in lines}) == HATCH


def test_classes_keep_their_colours_and_a_dark_line_between_them() -> None:
    mask = np.full((8, 8), 1, np.uint8)
    mask[:, 4:], mask[0] = 2, IGNORE_INDEX
    overlay = lay_classes(mask, LABELS)
    assert tuple(overlay[4, 2, :3]) == (20, 140, 150) and tuple(overlay[4, 6, :3]) == (240, 130, 30)
    assert (overlay[2:, 4, :3] == 0).all() and (overlay[2:, 4, 3] > 150).all()
    assert (overlay[0, :4, 3] == 0).all()


def test_an_overlay_is_the_same_after_it_was_written() -> None:
    mask = np.random.default_rng(0).integers(0, 3, (30, 41), np.uint8)
    for overlay in (lay_classes(mask, LABELS), np.random.default_rng(1).integers(0, 255, (30, 41, 4), np.uint8)):
        header, _, content = to_png(overlay).partition(",")
        again = np.asarray(Image.open(io.BytesIO(b64decode(content))).convert("RGBA"))
        assert header == "data:image/png;base64" and np.array_equal(again, overlay)


def test_regions_are_named_where_there_is_room() -> None:
    labels = numbered(3, images=False)
    mask = np.zeros((100, 200), np.uint8)
    mask[:, 150:], mask[:3, :3] = 1, 2
    words = name_regions(mask, labels, (1000, 2000))  # positions in pixels of the whole image
    assert [word.text for word in words] == [labels.names[0], labels.names[1]]
    assert 400 < words[0].x < 1100 and 1500 < words[1].x < 2000 and all(400 < word.y < 600 for word in words)


def test_pictures_of_noise_stay_below_the_limit(tmp_path: Path, run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 1400, 3), np.uint8)
    Image.fromarray(noise).save(run / "first_batch.png")
    examples = [make_example(f"noise-{i}", height=540, width=720, noisy=True) for i in range(6)]
    write(tmp_path, make_evaluation(examples=examples), run=run)
    assert (tmp_path / "report.html").stat().st_size <= MAX_BYTES <= 5_000_000


def test_nothing_but_the_page_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        write(folder, make_evaluation(examples=[make_example("first")]))
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_a_run_adds_its_curves_batch_data_recipe_and_environment(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(), run=run)
    assert "data:image/png;base64," in page and "data:image/jpeg;base64," in page and 'width="1400"' in page
    assert page.count("<details>") == 2 and "&lt;/pre&gt;&lt;b&gt;bold" in page
    assert "Machine of the training" in page and "devices cpu</th><td>2 cores</td>" in page
    assert '<td class="number">1,234</td>' in page and '<td class="number">66.67</td>' in page  # samples, share of road
    assert "sha256 of recipe.json" in page and len(re.findall(r"<code>[0-9a-f]{64}</code>", page)) == 3


def test_the_curve_of_a_sweep_and_the_machine_of_the_evaluation_are_shown_where_they_are_known(
    tmp_path: Path, run: Path
) -> None:
    assert "kept checkpoints" not in write(tmp_path, make_evaluation(), run=run)
    Image.new("RGB", (90, 60), (0, 200, 0)).save(run / "sweep.png")
    assert 'alt="Scores of the kept checkpoints' in write(tmp_path, make_evaluation(), run=run)
    write_report(make_evaluation(), tmp_path / "other.html", run=None, environment={"devices": {"cpu": "3 cores"}})
    page = (tmp_path / "other.html").read_text()
    assert "Machine of the evaluation" in page and "devices cpu</th><td>3 cores</td>" in page


def test_an_evaluation_without_a_run_leaves_its_parts_out(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(), run=tmp_path)
    assert "<details" not in page and "<img" not in page
    assert 'href="#training"' not in page and 'href="#data"' not in page
    assert page.count("0123456789abcdef" * 4) == 1  # the hash of what predicted stands in any case


def test_every_link_leads_to_a_place_and_no_two_places_have_one_name(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(failed=FAILED, examples=[make_example(n) for n in "abc"]), run=run)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


def test_every_picture_says_what_it_shows(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(examples=[make_example("one"), make_example("two")]), run=run)
    names = re.findall(r'<svg role="img" aria-label="([^"]+)"', page) + re.findall(r'<img [^>]*alt="([^"]+)"', page)
    assert len(names) == len(set(names)) == 2 * 4 + 2
    assert not re.search(r'<img(?![^>]*alt=")', page) and not re.search(r"<svg(?![^>]*aria-)", page)


def test_an_image_that_is_among_the_best_and_the_worst_is_shown_once() -> None:
    a, b, c = (make_example(name) for name in "abc")
    evaluation = replace(make_evaluation(), worst=(a, b, c), typical=(b,), best=(c, b, a))
    shown = [(example.group, example.name) for example in show_examples(evaluation, side=100)]
    assert shown == [("Worst", "a"), ("Typical", "b"), ("Best", "c")]


def test_the_photo_is_written_once_and_lies_below_every_view(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(examples=[make_example("first")]))
    assert page.count("data:image/jpeg") == 1
    assert page.count('<use href="#photo-0"') == 5  # four views, and the small picture
    assert page.count("data:image/png") == 3  # truth, prediction and errors over it


def test_boxes_lie_over_truth_prediction_and_errors(tmp_path: Path) -> None:
    evaluation = make_joint_evaluation()
    _, truth, prediction, errors = show_example(evaluation.best[0], LABELS, group="Best", side=480).views
    assert [box.left for box in truth.boxes] == [10, 60, 100]
    assert [box.left for box in prediction.boxes] == [10, 3]  # the third is not certain enough to be shown
    assert [(box.left, box.dashed, box.color) for box in errors.boxes] == [(60, False, WRONG), (3, True, WRONG)]
    page = write(tmp_path, evaluation)
    assert page.count('viewBox="0 0 128 96"') == 5 and page.count("stroke-dasharray=") == 1
    assert "50.00<small>% AP50</small>" in page and "object not found" in page and "2 and 1 difficult" in page
    assert evaluation.headline() in page and not says_nan(page)


def test_a_box_in_a_crowd_is_no_fault() -> None:
    example = make_joint_example("square", (10, 10, 50, 49), (3, 60, 23, 80))
    crowd = replace(example.sample, crowd_boxes=boxes_from((0, 55, 60, 96)), crowd_classes=np.array([0]))
    assert find_faults(example.sample, example.prediction).false.tolist() == [False, True]
    assert find_faults(crowd, example.prediction).false.tolist() == [False, False]
    other = replace(crowd, crowd_classes=np.array([1]))
    assert find_faults(other, example.prediction).false.tolist() == [False, True]


def test_a_class_has_a_bar_for_its_boxes_and_one_for_its_masks(tmp_path: Path) -> None:
    page = write(tmp_path, make_joint_evaluation())
    rows = re.findall(r'<td class="bar" aria-hidden="true">(.*?)</td>', page, re.DOTALL)
    assert [row.count("<b ") for row in rows] == [2, 1, 0]  # the second has no objects, the third is nowhere
    assert [row.count('class="second"') for row in rows] == [1, 1, 0]
    assert all(f'<th scope="col" class="number">{head}</th>' in page for head in ("AP50, %", "IoU, %", "Objects"))


def test_an_image_without_a_mask_is_void_in_the_pictures() -> None:
    example = make_joint_evaluation().best[0]
    example = replace(example, sample=replace(example.sample, mask=None))
    _, truth, _, errors = show_example(example, LABELS, group="Best", side=480).views
    assert truth.overlay is not None and not truth.overlay.any()
    assert errors.overlay is not None and len(np.unique(errors.overlay[..., 3])) == 2


def test_a_classification_shows_its_confusion_and_what_photos_were_taken_for(tmp_path: Path) -> None:
    evaluation = make_classification()
    page = write(tmp_path, evaluation)
    assert "75.00<small>% top-1</small>" in page and "100.00 %" in page and "Void pixels" not in page
    cells = re.findall(r'<td class="(right|wrong)" style="--share: ([\d.]+)%">(\d*)</td>', page)
    assert [(kind, count) for kind, _, count in cells if count] == [("right", "1"), ("wrong", "1"), ("right", "2")]
    assert len(cells) == 9 and [share for _, share, _ in cells][:3] == ["50.00", "50.00", "0.00"]
    assert "kind &lt;0&gt; 90.00 %" in page  # recognised
    assert "kind &lt;0&gt; 5.00 %, taken for kind &lt;1&gt; 90.00 %" in page
    assert page.count("<img") == 2 and "True classes" not in page and evaluation.headline() in page


def test_calibration_is_drawn_where_it_was_counted(tmp_path: Path) -> None:
    assert calibration_bins(make_classification()) == []
    evaluation = make_classification(rules=Rules(full=True))
    (filled,) = [part for part in calibration_bins(evaluation) if part.share]
    assert filled.share == 1 and filled.low < 0.9 <= filled.high and filled.right == 0.75
    assert filled.confidence == pytest.approx(0.9, abs=1e-7)
    assert overconfidence([filled]) == pytest.approx(0.15, abs=1e-7)
    page = write(tmp_path, evaluation)
    assert 'id="calibration"' in page and "15.00 points more certain than it is right" in page

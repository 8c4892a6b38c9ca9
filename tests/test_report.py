"""The report: one page that needs nothing else, says what was proved, and escapes whatever data brings along."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap
from veduta.report.examples import WRONG, draw_errors, show_example
from veduta.report.page import MAX_BYTES, class_rows, write_report
from veduta.tasks.average_precision import JointMetric
from veduta.tasks.evaluation import Evaluation, Example, ImageScore
from veduta.tasks.metrics import ClassMetric, MaskMetric, Scores
from veduta.tasks.prediction import Prediction

HOSTILE = "<script>alert(1)</script>"
LABELS = LabelMap(
    name="three",
    classes=(
        LabelClass(file_id=0, name="road & rail", color=(110, 90, 130)),
        LabelClass(file_id=1, name=HOSTILE, color=(20, 140, 150)),
        LabelClass(file_id=2, name="unicorn", color=(240, 130, 30)),
    ),
    void_ids=(IGNORE_INDEX,),
)
COUNTS = np.array([[90, 5, 0, 5], [10, 30, 0, 0], [0, 0, 0, 0]], np.int64)
FAILED = (("broken<1>", "images/broken<1>.png: not a readable image"), ("lost-7", "lost-7.png not found"))


def make_example(name: str, *, height: int = 48, width: int = 64, noisy: bool = False) -> Example:
    rng = np.random.default_rng(0)
    rows = np.indices((height, width))[0]
    image = (rows * 255 // height).astype(np.uint8)[..., None].repeat(3, axis=2)
    truth = np.where(rows < height // 2, 0, 1).astype(np.uint8)
    prediction = np.where(rows < height // 3, 0, 1).astype(np.uint8)
    truth[:4] = IGNORE_INDEX
    if noisy:
        image = rng.integers(0, 256, image.shape, np.uint8)
        truth, prediction = rng.integers(0, 3, (2, height, width), np.uint8)
    return Example(
        score=ImageScore(name=name, scores={"mean_iou": 0.5, "pixel_accuracy": 0.75}),
        sample=Sample(image=image, name=name, mask=truth),
        prediction=Prediction(mask=prediction),
    )


def scores_from(counts: NDArray[np.int64]) -> Scores:
    metric = MaskMetric(len(counts))
    metric.matrix.counts, metric.matrix.void = counts, int(counts.sum() // 19)
    return metric.compute()


def make_evaluation(
    *, failed: tuple[tuple[str, str], ...] = (), counts: NDArray[np.int64] = COUNTS, examples: Iterable[Example] = ()
) -> Evaluation:
    names = ["first", "second"]
    return Evaluation(
        dataset="towns",
        split="val",
        labels=LABELS,
        protocol="whole images, single scale",
        proof="weights 0123456789ab at step 1,200",
        sha256="0123456789abcdef" * 4,
        images_total=len(names) + len(failed),
        images_counted=len(names),
        failed=failed,
        scores=scores_from(counts),
        per_image=tuple(ImageScore(name=name, scores={"mean_iou": 0.5, "pixel_accuracy": 0.75}) for name in names),
        seconds=3.5,
        best=tuple(examples),
        worst=tuple(examples),
    )


def write(folder: Path, evaluation: Evaluation, *, run: Path | None = None) -> str:
    path = folder / "report.html"
    write_report(evaluation, path, run=run)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    Image.new("RGB", (90, 60), (200, 0, 0)).save(folder / "curves.png")
    Image.new("RGB", (3000, 200), (0, 0, 200)).save(folder / "first_batch.png")
    (folder / "recipe.json").write_text('{"name": "</pre><b>bold"}')
    (folder / "environment.json").write_text('{"torch": "2.10"}')
    return folder


def test_the_page_needs_no_network_and_no_other_file(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(examples=[make_example("first")]), run=run)
    sources = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert not re.search(r"<script|<link|<iframe|<object|@import|url\(", page, re.IGNORECASE)
    assert "default-src 'none'" in page  # and the browser is told to refuse the rest


def test_the_page_holds_the_headline(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    page = write(tmp_path, evaluation)
    assert evaluation.headline() in page
    assert "Every image counted once, none failed" in page and "not proved" not in page


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
    assert "Every image counted once" not in page


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
    assert "absent from the truth" in page and "yet predicted" not in page and "nan" not in page.lower()
    assert '<td class="number iou">81.82</td>' in page and '<td class="number iou">-</td>' in page


def test_a_class_that_is_predicted_but_absent_says_so(tmp_path: Path) -> None:
    counts = COUNTS + np.array([[0, 0, 7, 0], [0] * 4, [0] * 4])
    assert "absent from the truth, yet predicted" in write(tmp_path, make_evaluation(counts=counts))


def test_nothing_counted_still_makes_a_page(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(counts=np.zeros_like(COUNTS)))
    assert "mIoU -" in page and "nan" not in page.lower()


def test_wrong_pixels_stand_out_right_ones_are_grey_and_void_is_neither() -> None:
    image, truth, prediction = (
        np.full((8, 12, 3), 100, np.uint8),
        np.zeros((8, 12), np.uint8),
        np.zeros((8, 12), np.uint8),
    )
    truth[4:], prediction[:, 6:] = IGNORE_INDEX, 1
    red, green, blue = np.moveaxis(draw_errors(image, truth, prediction).astype(int), -1, 0)
    wrong = red - green > 50
    assert wrong[:4, 6:].all() and wrong.sum() == 24 and WRONG[0] - WRONG[1] > 50
    assert (red == blue)[~wrong].all() and red[:4, :6].min() > 150 and len(np.unique(red[4:])) == 2


def test_eight_examples_of_noise_stay_below_the_limit(tmp_path: Path, run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 1400, 3), np.uint8)
    Image.fromarray(noise).save(run / "first_batch.png")
    examples = [make_example(f"noise-{i}", height=720, width=960, noisy=True) for i in range(4)]
    write(tmp_path, make_evaluation(examples=examples), run=run)
    assert (tmp_path / "report.html").stat().st_size <= MAX_BYTES <= 5_000_000


def test_nothing_but_the_page_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        write(folder, make_evaluation(examples=[make_example("first")]))
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_a_run_adds_its_curves_batch_recipe_and_environment(tmp_path: Path, run: Path) -> None:
    page = write(tmp_path, make_evaluation(), run=run)
    assert "data:image/png;base64," in page and "data:image/jpeg;base64," in page and 'width="1400"' in page
    assert page.count("<details>") == 2 and "&lt;/pre&gt;&lt;b&gt;bold" in page and "torch" in page


def test_an_empty_run_adds_nothing(tmp_path: Path) -> None:
    page = write(tmp_path, make_evaluation(), run=tmp_path)
    assert "<details" not in page and "<img" not in page and 'href="#training"' not in page


def boxes_from(*boxes: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def make_joint_evaluation() -> Evaluation:
    """One image: a road that is found, another that is not, a difficult one, a box of nothing, and one nobody sees."""
    example = make_example("street", height=96, width=128)
    sample = replace(
        example.sample,
        boxes=boxes_from((10, 10, 50, 50), (60, 60, 90, 90), (100, 10, 120, 30)),
        box_classes=np.array([0, 0, 0]),
        box_difficult=np.array([False, False, True]),
    )
    prediction = replace(
        example.prediction,
        boxes=boxes_from((10, 10, 50, 49), (3, 60, 23, 80), (0, 0, 9, 9)),
        box_classes=np.array([0, 0, 0]),
        box_scores=np.array([0.9, 0.8, 0.4], np.float32),
    )
    metric = JointMetric(3)
    score = ImageScore(name="street", scores=metric.update(prediction, sample))
    shown = Example(score=score, sample=sample, prediction=prediction)
    return replace(
        make_evaluation(),
        images_total=1,
        images_counted=1,
        per_image=(score,),
        scores=metric.compute(),
        best=(shown,),
    )


def make_classification(num_classes: int = 3) -> Evaluation:
    classes = tuple(LabelClass(file_id=i, name=f"kind <{i}>", color=(40, 9, i % 256)) for i in range(num_classes))
    labels = LabelMap(name="kinds", classes=classes, of="images")
    metric, shown = ClassMetric(num_classes), []
    for i, (truth, guess) in enumerate([(0, 0), (0, 1), (1, 1), (1, 1)]):
        sample = replace(make_example(f"photo-{i}").sample, mask=None, scene_class=truth)
        class_scores = np.full(num_classes, 0.1 / (num_classes - 1), np.float32)
        class_scores[guess] = 0.9
        prediction = Prediction(class_scores=class_scores)
        score = ImageScore(name=sample.name, scores=metric.update(prediction, sample))
        shown.append(Example(score=score, sample=sample, prediction=prediction))
    return replace(
        make_evaluation(),
        labels=labels,
        images_total=4,
        images_counted=4,
        per_image=tuple(example.score for example in shown),
        scores=metric.compute(),
        best=(shown[0],),
        worst=(shown[1],),
    )


def test_boxes_lie_over_truth_prediction_and_errors(tmp_path: Path) -> None:
    evaluation = make_joint_evaluation()
    _, truth, prediction, errors = show_example(evaluation.best[0], LABELS).pictures
    assert [box.left for box in truth.boxes] == [10, 60, 100]
    assert [box.left for box in prediction.boxes] == [10, 3]  # the third is not certain enough to be shown
    assert [(box.left, box.dashed, box.color) for box in errors.boxes] == [(60, False, WRONG), (3, True, WRONG)]
    page = write(tmp_path, evaluation)
    assert page.count('viewBox="0 0 128 96"') == 3 and page.count("stroke-dasharray") == 1
    assert "50.00<small>% AP50</small>" in page and "object not found" in page and "2 and 1 difficult" in page
    assert evaluation.headline() in page and "nan" not in page.lower()


def test_a_class_has_a_bar_for_its_boxes_and_one_for_its_masks(tmp_path: Path) -> None:
    page = write(tmp_path, make_joint_evaluation())
    rows = re.findall(r'<td class="bar" aria-hidden="true">(.*?)</td>', page, re.DOTALL)
    assert [row.count("<b ") for row in rows] == [2, 1, 0]  # the second has no objects, the third is nowhere
    assert [row.count('class="second"') for row in rows] == [1, 1, 0]
    assert all(f'<th scope="col" class="number">{head}</th>' in page for head in ("AP50, %", "IoU, %", "Objects"))


def test_an_image_without_a_mask_is_void_in_the_pictures() -> None:
    example = make_joint_evaluation().best[0]
    example = replace(example, sample=replace(example.sample, mask=None))
    photo, truth, _, errors = show_example(example, LABELS).pictures
    assert (truth.pixels == photo.pixels).all() and len(np.unique(errors.pixels)) > 2


def test_a_classification_shows_its_confusion_and_what_photos_were_taken_for(tmp_path: Path) -> None:
    evaluation = make_classification()
    page = write(tmp_path, evaluation)
    assert "75.00<small>% top-1</small>" in page and "100.00 % top-5" in page and "Void pixels" not in page
    cells = re.findall(r'<td class="(right|wrong)( dark)?" style="--share: ([\d.]+)%">(\d*)</td>', page)
    assert [(kind, count) for kind, _, _, count in cells if count] == [("right", "1"), ("wrong", "1"), ("right", "2")]
    assert len(cells) == 9 and [share for _, _, share, _ in cells][:3] == ["50.00", "50.00", "0.00"]
    assert "kind &lt;0&gt; 90.00 %" in page  # recognised
    assert "kind &lt;0&gt; 5.00 %, taken for kind &lt;1&gt; 90.00 %" in page
    assert page.count("<img") == 2 and "True classes" not in page and evaluation.headline() in page


def test_a_thousand_classes_make_a_page_without_a_table_of_a_million_cells(tmp_path: Path) -> None:
    page = write(tmp_path, make_classification(1000))
    assert 'id="confusion"' not in page and page.count('<th scope="row"') == 1000
    assert "<bdi>kind &lt;1&gt;</bdi> (100 %)" in page  # where its misses go


EVALUATIONS = {
    "segment": lambda: make_evaluation(failed=FAILED, examples=[make_example("first")]),
    "detect_segment": make_joint_evaluation,
    "classify": make_classification,
}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize(
    ("task", "width", "height"),
    [("segment", 420, 3600), ("segment", 1200, 2400), ("detect_segment", 1200, 2400), ("classify", 1200, 2400)],
)
def test_a_browser_shows_the_page(tmp_path: Path, run: Path, task: str, width: int, height: int) -> None:
    write(tmp_path, EVALUATIONS[task](), run=run)
    screenshot = tmp_path / "screenshot.png"
    command = (
        "chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --screenshot={screenshot} "
        f"--window-size={width},{height} {(tmp_path / 'report.html').as_uri()}"
    )
    assert subprocess.run(command.split(), capture_output=True, timeout=120).returncode == 0
    pixels = np.asarray(Image.open(screenshot).convert("RGB"))
    ink = (pixels != pixels[0, 0]).any(axis=2)
    assert pixels.shape == (height, width, 3) and 0.02 < ink.mean() < 0.9
    assert (pixels == (200, 0, 0)).all(axis=2).any()  # the red of the curves: images are shown

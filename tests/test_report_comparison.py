"""The page of a comparison: the difference, what it is worth, where it lies, and the pictures that changed."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from evaluations import (
    COUNTS,
    HOSTILE,
    LABELS,
    compare,
    make_classification,
    make_comparison,
    make_evaluation,
    make_example,
    make_joint_evaluation,
    make_joint_example,
)

from veduta.labels import IGNORE_INDEX
from veduta.report.comparison_page import axis_around, write_comparison
from veduta.report.examples import show_pair
from veduta.report.html import MAX_BYTES
from veduta.report.overlays import GAINED, HATCH, WRONG, lay_changes
from veduta.tasks.comparison import Comparison


def write(folder: Path, comparison: Comparison) -> str:
    path = folder / "comparison.html"
    write_comparison(comparison, path)
    return path.read_text(encoding="utf-8")


def says_nan(page: str) -> bool:
    return bool(re.search(r"\bnan\b", re.sub(r'data:image[^"]+', "", page), re.IGNORECASE))


def test_the_page_holds_the_headline_and_says_what_the_interval_means(tmp_path: Path) -> None:
    comparison = make_comparison()
    page = write(tmp_path, comparison)
    assert comparison.headline() in page and comparison.verdict in page
    assert "zero is outside" in page and "both counted every image once" in page
    assert "<dt>↑ B is better on</dt><dd>2</dd>" in page and "<dt>↓ B is worse on</dt><dd>1</dd>" in page
    around_zero = replace(comparison, interval=(-0.01, 0.02))
    assert "-1.00 to +2.00 points" in write(tmp_path, around_zero) and "zero is inside" in write(tmp_path, around_zero)


def test_the_page_needs_no_network_no_script_and_escapes_names(tmp_path: Path) -> None:
    comparison = replace(make_comparison(), names=("a<b>", "c&d"), warnings=("the protocols <differ>",))
    page = write(tmp_path, comparison)
    sources = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert "<script" not in page and "a&lt;b&gt;" in page and "c&amp;d" in page
    assert "Read this first" in page and "the protocols &lt;differ&gt;" in page


def test_the_interval_is_drawn_around_zero() -> None:
    axis = axis_around(0.01, -0.02, 0.04)
    assert axis.place(0) == 0.5 and 0 < axis.place(-0.02) < 0.5 < axis.place(0.01) < axis.place(0.04) < 1
    assert axis.place(0.04) - 0.5 == 2 * (0.5 - axis.place(-0.02))
    assert axis_around().place(0) == axis_around(float("nan"), 0.0).place(0) == 0.5


def test_classes_have_arrows_and_signs_the_largest_gain_first(tmp_path: Path) -> None:
    worse = COUNTS + np.array([[0, 0, 0, 40], [-10, 10, 0, 0], [0] * 4])
    page = write(tmp_path, compare(make_evaluation(), make_evaluation(counts=worse)))
    names = re.findall(r'<th scope="row" class="name"><bdi>(.*?)</bdi>', page)
    assert names == [HOSTILE.replace("<", "&lt;").replace(">", "&gt;"), "road &amp; rail", "unicorn"]
    arrows = re.findall(r'<td class="number iou">(\S*) ([-+][\d.]*|-)</td>', page)
    assert [arrow for arrow, _ in arrows] == ["↑", "↓", ""] and arrows[2][1] == "-"
    assert page.count('<b class="gain"') == page.count('<b class="loss"') == 1 and not says_nan(page)


def test_a_missing_proof_is_told_with_its_side(tmp_path: Path) -> None:
    page = write(tmp_path, compare(make_evaluation(), make_evaluation(failed=(("lost", "not found"),))))
    assert "Not proved: read why" in page and "This comparison is not proved" in page
    assert "B: 1 of 3 images failed" in page and "A: 1 of 3" not in page


def test_speed_and_size_stand_beside_each_other_where_they_are_known(tmp_path: Path) -> None:
    comparison = make_comparison()
    page = write(tmp_path, comparison)
    assert '<th scope="row">Images per second</th><td>12.5</td><td>-</td>' in page
    assert "1,234,567" in page and "5.0 MB" in page
    unknown = replace(comparison, cost=(comparison.cost[1],) * 2)
    assert "Parameters" not in write(tmp_path, unknown)


def test_nothing_to_compare_still_makes_a_page(tmp_path: Path) -> None:
    empty = make_evaluation(counts=np.zeros_like(COUNTS))
    comparison = replace(compare(empty, empty), interval=None)
    page = write(tmp_path, comparison)
    assert comparison.verdict in page and 'class="interval"' not in page and not says_nan(page)


def test_what_was_lost_won_and_never_right_look_different() -> None:
    truth = np.zeros((2 * HATCH, 40), np.uint8)
    before, after = truth.copy(), truth.copy()
    before[:, 10:20] = after[:, :10] = 1  # lost, then won
    before[:, 20:30] = after[:, 20:30] = 2  # wrong both times
    truth[:, 35:] = IGNORE_INDEX
    overlay = lay_changes(truth, before, after)
    lost, won, neither, right, void = (overlay[:, at] for at in np.split(np.arange(40), (10, 20, 30, 35)))
    assert (lost[..., :3] == WRONG).all() and (lost[..., 3] > 150).all()
    assert (won[..., :3] == GAINED).all() and len(np.unique(won[:, 0, 3])) == 2 and (won == won[:, :1]).all()
    assert 0 < (neither[..., 3] > 0).mean() < 0.2 and not right.any()
    assert 0 < (void[..., 3] > 0).mean() < 0.5


def test_objects_that_only_one_finds_are_named_by_it() -> None:
    a = make_joint_example("street", (10, 10, 50, 49))
    b = make_joint_example("street", (60, 60, 90, 91))
    score = "mean_iou"
    difference = show_pair((a, b), LABELS, score=score, side=480).views[3]
    assert [(box.left, box.name) for box in difference.boxes] == [(10, "only A"), (60, "only B")]


def test_pictures_show_a_b_truth_and_difference_with_the_change(tmp_path: Path) -> None:
    comparison = make_comparison()
    first, last = comparison.changed[0], comparison.changed[-1]
    shown = show_pair(first, LABELS, score="mean_iou", side=480)
    assert [view.title for view in shown.views] == ["A", "B", "Truth", "Difference"]
    assert shown.figure == "↑ +40.00" and "of A 50.00 %, of B 90.00 %" in shown.words
    assert show_pair(last, LABELS, score="mean_iou", side=480).figure == "↓ -10.00"
    page = write(tmp_path, comparison)
    names = re.findall(r'<svg role="img" aria-label="([^"]+)"', page)
    assert len(names) == len(set(names)) == 3 * 4 and page.count("data:image/jpeg") == 3


def test_photos_of_a_classification_say_what_both_took_them_for(tmp_path: Path) -> None:
    evaluation = make_classification()
    right, wrong = evaluation.best[0], evaluation.worst[0]
    pair = (wrong, replace(right, sample=wrong.sample))
    page = write(tmp_path, compare(evaluation, evaluation, pair))
    assert "A: kind &lt;0&gt; 5.00 %, taken for kind &lt;1&gt; 90.00 %; B: kind &lt;0&gt; 90.00 %" in page


def test_boxes_and_masks_are_compared_on_one_canvas(tmp_path: Path) -> None:
    evaluation = make_joint_evaluation()
    example = evaluation.best[0]
    page = write(tmp_path, compare(evaluation, evaluation, (example, example)))
    assert "object that only A finds" in page and "+0.00<small>AP50, B - A</small>" in page


def test_twenty_changed_pictures_of_noise_stay_below_the_limit(tmp_path: Path) -> None:
    comparison = make_comparison()
    noise = make_example("noise", height=300, width=400, noisy=True)
    pairs = tuple((noise, noise) for _ in range(20))
    write(tmp_path, replace(comparison, changed=pairs))
    assert (tmp_path / "comparison.html").stat().st_size <= MAX_BYTES

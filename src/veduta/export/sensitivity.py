"""Sensitivity: which layers lose most in int8, by measurement; files that keep more and more of them in float."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from veduta.backends.onnx import open_session
from veduta.engine.progress import ProgressLine
from veduta.export.int8 import Array, find_ranges, layers, quantize, run
from veduta.model_info import Bounds, Departure

MOST_GROUPS = 12  # of layers that follow each other, and so of measurements
MEASURED_ON = 4  # images
KEPT_GROUPS = (1, 2, 4, 6)  # of the most sensitive ones, from candidate to candidate
MARGIN = 2.0  # of an int8 file's bounds over what was measured when it was made


@dataclass(frozen=True)
class Candidate:
    """A graph in int8. kept: names of the nodes that stay in float. error: see relative_error."""

    proto: onnx.ModelProto
    kept: tuple[str, ...]
    error: float


def candidates(proto: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], line: ProgressLine) -> Iterator[Candidate]:
    """The graph in int8: first all of it, then with more and more of its most sensitive layers in float.

    images: (N, 3, H, W) each, as the network is shown them; some dozens that look like what is to come. The caller
    scores each candidate and takes the first one that is good enough: no measurement here replaces a score. How
    sensitive layers are is measured only where the first one was not.
    """
    ranges = find_ranges(proto, images, lambda done, total: line.count("calibrating int8 on image", done, total))
    shown = images[:: -(-len(images) // MEASURED_ON)]
    expected = _outputs(proto, shown)

    def candidate(kept: Sequence[str]) -> Candidate:
        quantised = quantize(proto, ranges, kept)
        return Candidate(quantised, tuple(kept), relative_error(expected, _outputs(quantised, shown)))

    yield candidate(())
    names = layers(proto)
    count = min(MOST_GROUPS, len(names))
    groups = [names[i * len(names) // count : (i + 1) * len(names) // count] for i in range(count)]
    errors = []
    for done, group in enumerate(groups, start=1):
        errors.append(candidate(group).error)
        line.count("measuring what int8 costs, layers", done, count)
    ranked = sorted(range(count), key=errors.__getitem__)  # the less is left without a group, the more it cost
    for number in KEPT_GROUPS:
        if number < count:
            yield candidate([name for index in sorted(ranked[:number]) for name in groups[index]])


def relative_error(expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """Of outputs, image by image: RMS of the difference, relative to the output's deviation from its mean.

    Mean over images and outputs that are not constant; whole numbers are left out.
    """
    errors = [
        float(np.sqrt(np.mean((one - other) ** 2)) / one.std())
        for pair in zip(expected, found, strict=True)
        for one, other in zip(*pair, strict=True)
        if one.dtype.kind == "f" and one.std() > 0
    ]
    return float(np.mean(errors)) if errors else 0.0


def measured_bounds(found: Sequence[Departure]) -> Bounds:
    """What an int8 file is held to: MARGIN times what it departed from the network in float when it was made.

    No bound for all files would be honest: a network of a hundred layers departs more than one of ten, and the score
    says whether that matters. These say that the file still does what was scored. Its outputs on the machine that made
    it are no measure: processors without instructions for int8 round sums elsewhere and, before AVX512-VNNI, saturate
    them at 16 bits; the margin allows for the rounding, and not for the saturation, which costs score. A box that
    one side alone has makes box_shift infinite: then boxes are held by their logits and deltas only. An output that is
    missing or no number stays beyond every bound.
    """
    agreements = [each.agreement for each in found if each.agreement is not None]
    shifts = [each.box_shift for each in found if each.box_shift is not None]
    least = Bounds()
    return Bounds(
        largest=max([least.largest, *(MARGIN * each.largest for each in found if math.isfinite(each.largest))]),
        agreement=max(0.0, min([least.agreement, *(1 - MARGIN * (1 - agreement) for agreement in agreements)])),
        box_shift=max([least.box_shift, *(MARGIN * shift for shift in shifts)]),
    )


def _outputs(proto: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> list[list[Array]]:
    session = open_session(proto.SerializeToString())
    return [run(session, batch) for batch in images]

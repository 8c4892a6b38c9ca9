"""Windows: slides over images of any size and blends what the network says, band by band in bounded memory."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from veduta.backends import Backend
from veduta.data.bands import Rows
from veduta.data.fit import Pixels, Size, stack
from veduta.engine.progress import ProgressLine
from veduta.errors import is_out_of_memory
from veduta.ops.arrays import Array, add_weighted_, copied, float32, like, zeros_like
from veduta.tasks.prediction import CONFIDENCE_STEP

OVERLAP = 0.25  # share of a window that the next one sees, too; at least
SMALLEST = 64  # pixels: windows are not made smaller when memory is short


class Windows:
    """The weighted mean of the logits of all windows that see a pixel; the weight of a window falls to its edges.

    window: height and width; an image that is smaller is shown whole. batch_size: windows that the network gets at
    once. Where memory is out, both become smaller, and stay so.
    """

    def __init__(self, window: Size, batch_size: int) -> None:
        self.window, self.batch_size = window, batch_size
        self.shrunk = False  # which was not said yet

    def shown_size(self, size: Size) -> Size:
        return size

    def bands(self, backend: Backend, image: Rows) -> Iterator[Array]:
        """Logits (1, C, h, W) of h rows at a time, from the top to the bottom; each only until the next is asked for.

        Besides what the network needs for a batch of windows, one band is held: C x (window's height) x W float32.
        Where that does not fit even with one window of SMALLEST pixels, what the network raises is raised.
        """
        while True:
            bands = self._bands(backend, image)
            try:
                first = next(bands)
                break
            except (RuntimeError, MemoryError) as error:
                window = self._fitting(image)
                smaller = tuple(max(min(length, SMALLEST), (length + 1) // 2) for length in window)
                if not is_out_of_memory(error) or smaller == window:
                    raise
                self.window, self.shrunk = (smaller[0], smaller[1]), True
        yield first
        yield from bands

    def _fitting(self, image: Rows) -> Size:
        return min(self.window[0], image.shape[0]), min(self.window[1], image.shape[1])

    def _bands(self, backend: Backend, image: Rows) -> Iterator[Array]:
        (height, width), window = image.shape[:2], self._fitting(image)
        tops, lefts = places(height, window[0]), places(width, window[1])
        down, across = blend(tops, window[0], height), blend(lefts, window[1], width)
        band, begin = None, 0  # the band's first row
        for row, top in enumerate(tops):
            pixels = image[top : top + window[0]]
            column = 0
            for logits in self._logits(backend, pixels, lefts, window[1]):
                if band is None:
                    band = zeros_like(logits, window[0] + CONFIDENCE_STEP - 1, width)
                    down, across = like(down, logits), like(across, logits)
                for i in range(len(logits)):
                    left = lefts[column]
                    part = band[..., top - begin : top - begin + window[0], left : left + window[1]]
                    add_weighted_(part, logits[i : i + 1], down[row, :, None] * across[column])
                    column += 1
            assert band is not None
            end = height  # of what no window sees that is still to come
            if row + 1 < len(tops):  # bands begin where the confidence of the whole image has a row
                end = tops[row + 1] // CONFIDENCE_STEP * CONFIDENCE_STEP
            if end > begin:  # else the next windows lie so near that the band still has room for them
                yield band[..., : end - begin, :]
                left_over = copied(band[..., end - begin : top + window[0] - begin, :])
                band[...] = 0
                band[..., : left_over.shape[2], :] = left_over
                begin = end

    def _logits(self, backend: Backend, pixels: Pixels, lefts: list[int], width: int) -> Iterator[Array]:
        """Logits (N, C, h, width) float32 of the windows in a row, in batches that fit into the memory."""
        done = 0
        while done < len(lefts):
            batch = stack([pixels[:, left : left + width] for left in lefts[done : done + self.batch_size]])
            try:
                logits = float32(backend(batch)["mask_logits"])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
                self.batch_size, self.shrunk = (min(self.batch_size, len(batch)) + 1) // 2, True
                continue
            if self.shrunk:
                windows = "one window" if self.batch_size == 1 else f"{self.batch_size} windows"
                ProgressLine().say(
                    f"warning: {backend.device} was out of memory; from here on it gets {windows} of {width} x "
                    f"{len(pixels)} at a time"
                )
                self.shrunk = False
            done += len(logits)
            yield logits


def places(length: int, window: int) -> list[int]:
    """Where windows begin that cover `length` pixels: spread evenly, as few as overlap by OVERLAP."""
    count = 1 + math.ceil((length - window) / max(1, window - math.ceil(OVERLAP * window)))
    return [i * (length - window) // max(count - 1, 1) for i in range(count)]


def blend(starts: list[int], window: int, length: int) -> NDArray[np.float32]:
    """Weights (len(starts), window) along one axis: Hann's curve, scaled so that all weights of a pixel sum to 1."""
    curve = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total: NDArray[np.float64] = np.zeros(length)
    for start in starts:
        total[start : start + window] += curve
    return np.stack([curve / total[start : start + window] for start in starts]).astype(np.float32)

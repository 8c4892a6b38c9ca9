"""Promises of sliding windows: the network's own answer, blended without seams, for any size, in bounded memory."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stub_backend import FunctionBackend
from torch import Tensor

from veduta.data.fit import Size
from veduta.data.sample import Sample
from veduta.engine.predictor import Predictor, batches_by_size
from veduta.engine.windows import OVERLAP, SMALLEST, Windows, blend, places
from veduta.errors import RunStopped
from veduta.tasks.prediction import CONFIDENCE_STEP

WEIGHTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def by_pixel(images: Tensor) -> Tensor:
    """A network that looks at single pixels."""
    return torch.einsum("kc,nchw->nkhw", WEIGHTS, images)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def whole(image: NDArray[np.uint8]) -> Tensor:
    return by_pixel(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)


def opened(window: Size, network: Any = by_pixel, *, batch_size: int = 8) -> tuple[Predictor, FunctionBackend]:
    backend = FunctionBackend(network, "windows", crop=window)
    predictor = Predictor(backend)
    predictor.show = Windows(window, batch_size)
    return predictor, backend


def logits(predictor: Predictor, image: NDArray[np.uint8]) -> Tensor:
    """(1, C, H, W), all bands together."""
    assert isinstance(predictor.show, Windows)
    return torch.cat([band.clone() for band in predictor.show.bands(predictor.backend, image)], dim=2)


@pytest.mark.parametrize(("length", "window"), [(64, 64), (65, 64), (300, 64), (2048, 512), (20_000, 513), (7, 7)])
def test_windows_cover_the_image_evenly_and_overlap_by_a_quarter_or_more(length: int, window: int) -> None:
    starts = places(length, window)
    assert starts[0] == 0 and starts[-1] == length - window
    steps = np.diff(starts)
    assert (steps <= (1 - OVERLAP) * window).all() and (len(steps) == 0 or steps.max() - steps.min() <= 1)
    assert len(starts) == 1 or (len(starts) - 2) * (1 - OVERLAP) * window < length - window  # not one more than needed


@pytest.mark.parametrize(("length", "window"), [(64, 64), (65, 64), (300, 64), (333, 100)])
def test_the_weights_of_a_pixel_sum_to_1_and_fall_to_the_edges_inside_of_the_image(length: int, window: int) -> None:
    starts = places(length, window)
    weights, total = blend(starts, window, length), np.zeros(length)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + window] += row
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert (weights > 0).all() and weights[0, 0] == 1 and weights[-1, -1] == 1
    if length >= 300:
        assert weights[1, 0] < 0.01 < weights[1, 10] < 0.99 < weights[1, window // 2] + 0.02


@pytest.mark.parametrize(
    "size", [(64, 64), (66, 64), (200, 300), (129, 65), (70, 1000), (1000, 70), (20, 30), (1, 1), (3, 200)]
)
def test_a_network_that_sees_single_pixels_says_what_it_says_of_the_whole_image(size: Size) -> None:
    image = picture(*size)
    predictor, backend = opened((64, 64))
    torch.testing.assert_close(logits(predictor, image), whole(image), rtol=1e-4, atol=1e-5)
    (prediction,), expected = predictor([image]), predictor.task.predict({"mask_logits": whole(image)})[0]
    assert prediction.mask is not None and prediction.confidence is not None and expected.confidence is not None
    assert prediction.mask.shape == size and (prediction.mask == expected.mask).mean() > 0.999
    np.testing.assert_allclose(prediction.confidence, expected.confidence, rtol=1e-4)
    assert all(shape[2:] == (min(64, size[0]), min(64, size[1])) and shape[0] <= 8 for shape in backend.shapes)


def test_bands_begin_at_multiples_of_four_rows_and_are_no_higher_than_a_window() -> None:
    predictor, backend = opened((50, 60))
    assert isinstance(predictor.show, Windows)
    for height in (333, 51, 52, 53, 54):
        heights = [band.shape[2] for band in predictor.show.bands(backend, picture(height, 100))]
        assert sum(heights) == height and 0 < min(heights) <= max(heights) <= 50 + CONFIDENCE_STEP - 1
        assert all(top % CONFIDENCE_STEP == 0 for top in np.cumsum(heights)[:-1])


def test_there_are_no_seams_where_windows_disagree() -> None:
    """A network that adds a constant of its own to every window: neighbours differ by no more than a smooth change."""
    constants = iter(np.random.default_rng(0).normal(size=1000).tolist())

    def network(images: Tensor) -> Tensor:
        return torch.tensor([next(constants) for _ in images])[:, None, None, None].expand(-1, 4, *images.shape[2:])

    predictor, backend = opened((64, 64), network)
    found = logits(predictor, picture(300, 300))[0, 0]
    assert found.std() > 0.3
    assert found.diff(dim=0).abs().max() < 0.4 and found.diff(dim=1).abs().max() < 0.4


def test_rows_are_asked_for_a_band_at_a_time() -> None:
    class Rows:
        shape = (500, 90, 3)
        asked: list[tuple[int, int]] = []

        def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
            self.asked.append((rows.start, rows.stop))
            return picture(500, 90)[rows]

    predictor, _ = opened((64, 64))
    masks = [band.mask for band in predictor.bands(Rows()) if band.mask is not None]
    np.testing.assert_array_equal(np.concatenate(masks), whole(picture(500, 90))[0].argmax(0).numpy())
    assert all(stop - start == 64 for start, stop in Rows.asked) and len(Rows.asked) == len(masks) == 11


def out_of_memory_beyond(pixels: int) -> Any:
    def network(images: Tensor) -> Tensor:
        if images[:, 0].numel() > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return by_pixel(images)

    return network


def test_out_of_memory_halves_the_batch_of_windows_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    image = picture(300, 300)
    predictor, backend = opened((64, 64), out_of_memory_beyond(3 * 64 * 64))
    for _ in range(2):
        (prediction,) = predictor([image])
        assert prediction.mask is not None
        np.testing.assert_array_equal(prediction.mask, whole(image)[0].argmax(0).numpy())
    assert [shape[0] for shape in backend.shapes[:5]] == [6, 3, 3, 3, 3]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == "warning: cpu was out of memory; from here on it gets 3 windows of 64 x 64 at a time"
    assert predictor.protocol.startswith("windows of 64 x 64")


def test_then_it_halves_the_window_and_the_protocol_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    image = picture(400, 300)
    predictor, backend = opened((300, 400), out_of_memory_beyond(100 * 100))
    (prediction,) = predictor([image])
    assert prediction.mask is not None
    np.testing.assert_array_equal(prediction.mask, whole(image)[0].argmax(0).numpy())
    assert backend.shapes[-1] == (1, 3, 75, 75)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "one window of 75 x 75 at a time" in warning
    assert predictor.protocol == "windows of 75 x 75 that overlap by a quarter, logits blended"


def test_a_window_that_cannot_be_smaller_is_one_error() -> None:
    predictor, backend = opened((300, 300), out_of_memory_beyond(10))
    with pytest.raises(RunStopped, match="memory of cpu is too small: CUDA out of memory.*\n"):
        predictor([picture(1000, 1000)])
    assert backend.shapes[-1] == (1, 3, SMALLEST, SMALLEST)


def test_memory_that_runs_out_in_the_middle_of_an_image_halves_the_batch_there() -> None:
    calls = iter([True] * 5 + [False] + [True] * 100)

    def network(images: Tensor) -> Tensor:
        if not next(calls):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return by_pixel(images)

    image = picture(300, 300)
    predictor, backend = opened((64, 64), network)
    (prediction,) = predictor([image])
    assert prediction.mask is not None
    np.testing.assert_array_equal(prediction.mask, whole(image)[0].argmax(0).numpy())
    assert [shape[0] for shape in backend.shapes[4:8]] == [6, 6, 3, 3]


def test_large_images_do_not_wait_for_a_batch_of_others() -> None:
    sizes = [(10, 10)] * 5 + [(6000, 6000)] * 3 + [(3000, 10_000)] * 4
    samples = [(i, Sample(image=np.broadcast_to(np.uint8(0), (*size, 3)), name=str(i))) for i, size in enumerate(sizes)]
    found = batches_by_size(iter(samples), 4, lambda image: (image.shape[0], image.shape[1]))
    assert [len(batch) for batch in found] == [4, 1, 1, 1, 1, 2, 2]

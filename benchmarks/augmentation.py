"""Random scale, crop and flip of an image with its mask: Veduta's one resampling against torchvision v2's three steps.

    PYTHONPATH=src .bench/bin/python -m benchmarks.augmentation

500 x 375 uint8 image and mask in memory -> 513 x 513, scale 0.5 to 2, flip half of the time; one thread on both sides.
Veduta: `draw_window` and `warp`, arrays in, arrays out. torchvision: a `Compose` over tv_tensors; wrapping the same
arrays is part of its time. Takes about 20 seconds; docs/benchmarks.md says how to make .bench.
"""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.timing import Round, compare
from veduta.data.augment.geometry import MEAN_COLOR, draw_window, warp
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX

HEIGHT, WIDTH, CROP = 375, 500, 513
SCALE = (0.5, 2.0)
ROUNDS, WARMUP = 500, 20

Pixels = NDArray[np.uint8]


def paint(rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A smooth image and a mask of coherent regions, in a size that is common in PASCAL VOC."""
    noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    regions = rng.integers(0, 21, (HEIGHT // 40, WIDTH // 40), dtype=np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return image, cv2.resize(regions, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)


def augment_with_veduta(image: Pixels, mask: Pixels, zoom: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    window = draw_window((HEIGHT, WIDTH), (CROP, CROP), scale=(zoom, zoom), flip=0.5, rng=rng)
    sample = warp(Sample(image=image, mask=mask, name="scene"), window, (CROP, CROP))
    assert sample.mask is not None
    return sample.image, sample.mask


def torchvision_pipeline(zoom: float, *, antialias: bool = True) -> v2.Compose:
    """What torchvision's own transforms make of "scale, crop, flip".

    Fair to torchvision: uint8 all the way, for which its bilinear resize has vector code; flip last, which costs least;
    its default antialias and, because Veduta's warp has none, a row without it. `ScaleJitter` is given the zoom that
    Veduta has in the same round: the zoom decides how many pixels there are to compute.
    """
    outside = {tv_tensors.Image: MEAN_COLOR, tv_tensors.Mask: IGNORE_INDEX}
    return v2.Compose(
        [
            # target_size is read as (width, height), whatever its documentation says: `check` looks.
            v2.ScaleJitter(target_size=(WIDTH, HEIGHT), scale_range=(zoom, zoom), antialias=antialias),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=outside),
            v2.RandomHorizontalFlip(),
        ]
    )


def augment_with_torchvision(image: Pixels, mask: Pixels, pipeline: v2.Compose) -> list[torch.Tensor]:
    return pipeline([v2.functional.to_image(image), tv_tensors.Mask(torch.from_numpy(mask))])


def augment_a_view_with_torchvision(image: Pixels, mask: Pixels, pipeline: v2.Compose) -> list[torch.Tensor]:
    """Tuned by hand: a view in place of the copy that `to_image` makes, so the image stays channels last: faster."""
    view = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
    return pipeline([view, tv_tensors.Mask(torch.from_numpy(mask))])


def check(image: Pixels, mask: Pixels) -> None:
    """Both sides do the same work: the same zoom of the source, the same size and type of the result."""
    for zoom in SCALE:
        pipeline = torchvision_pipeline(zoom)
        scaled = pipeline.transforms[0](v2.functional.to_image(image))
        assert scaled.shape == (3, int(zoom * HEIGHT), int(zoom * WIDTH)), scaled.shape
        for augment in (augment_with_torchvision, augment_a_view_with_torchvision):
            images, masks = augment(image, mask, pipeline)
            assert images.shape == (3, CROP, CROP) and masks.shape == (CROP, CROP)
            assert images.dtype == masks.dtype == torch.uint8
        ours, our_mask = augment_with_veduta(image, mask, zoom, np.random.default_rng(0))
        assert ours.shape == (CROP, CROP, 3) and our_mask.shape == (CROP, CROP)


def draw_rounds(image: Pixels, mask: Pixels) -> Iterator[Round]:
    rng = np.random.default_rng(1)
    for _ in range(WARMUP + ROUNDS):
        zoom = float(np.exp(rng.uniform(*np.log(SCALE))))
        default, aliased = torchvision_pipeline(zoom), torchvision_pipeline(zoom, antialias=False)
        yield {
            "Veduta": partial(augment_with_veduta, image, mask, zoom, rng),
            "torchvision v2": partial(augment_with_torchvision, image, mask, default),
            "torchvision v2, antialias=False": partial(augment_with_torchvision, image, mask, aliased),
            "torchvision v2, channels-last view": partial(augment_a_view_with_torchvision, image, mask, default),
        }


if __name__ == "__main__":
    image, mask = paint(np.random.default_rng(0))
    check(image, mask)
    compare(draw_rounds(image, mask), warmup=WARMUP)

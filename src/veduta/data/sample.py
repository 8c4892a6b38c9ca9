"""Sample and Batch: what a dataset gives, what a training step eats; reading images and masks from disk.

A dataset turns files into `Sample`s; it does not augment and makes no tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from veduta.labels import LabelMap

MAX_PIXELS = 178_956_970  # decoded images beyond this are refused before any memory is taken (0.5 GiB of RGB)

DEEP_MODES = ("I", "F")  # Pillow's 32-bit greys; its 16-bit ones begin with I;16


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it.

    image: (H, W, 3) uint8 RGB. mask: (H, W) uint8 train ids, 255 void. boxes: (N, 4) float32 xyxy pixels.
    box_classes: (N,) int64 train ids. scene_class: class of the whole image. name: unique inside its split, no ending.
    """

    image: NDArray[np.uint8]
    name: str
    mask: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None
    scene_class: int | None = None


class SampleDataset(Protocol):
    """What every entry of DATASETS gives: samples by index, the one label map, no augmentation, no tensors."""

    labels: LabelMap

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class InMemory:
    """A data set whose samples are decoded once, at their first use, and then kept, read-only.

    Threads may share it: at worst two of them decode the same sample. Worker processes share what was read before they
    started.
    """

    def __init__(self, dataset: SampleDataset) -> None:
        self.dataset, self.labels = dataset, dataset.labels
        self.samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index not in self.samples:
            sample = self.dataset[index]
            for array in vars(sample).values():
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False
            self.samples[index] = sample
        return self.samples[index]


class Batch(NamedTuple):
    """N samples of one size; what none of them has is None.

    images: (N, 3, H, W) uint8 RGB. masks: (N, H, W) uint8 train ids, 255 void. names: of the samples. boxes: per image
    (n, 4) float32 xyxy pixels. box_classes: per image (n,) int64 train ids. scene_classes: (N,) int64 train ids.
    """

    images: Tensor
    masks: Tensor | None
    names: tuple[str, ...]
    boxes: tuple[Tensor, ...] | None = None
    box_classes: tuple[Tensor, ...] | None = None
    scene_classes: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Every tensor on `device`; from pinned memory the copies overlap with work."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, tuple):
                return tuple(move(part) for part in value)
            return value

        return Batch(*map(move, self))


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one size -> Batch. Images come out channels_last, because that is how they lie in memory."""
    masks = [s.mask for s in samples if s.mask is not None]
    boxes = [torch.from_numpy(s.boxes) for s in samples if s.boxes is not None]
    box_classes = [torch.from_numpy(s.box_classes) for s in samples if s.box_classes is not None]
    scene_classes = [s.scene_class for s in samples if s.scene_class is not None]
    assert all(len(values) in (0, len(samples)) for values in (masks, boxes, box_classes, scene_classes))
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        masks=torch.from_numpy(np.stack(masks)) if masks else None,
        names=tuple(s.name for s in samples),
        boxes=tuple(boxes) or None,
        box_classes=tuple(box_classes) or None,
        scene_classes=torch.tensor(scene_classes) if scene_classes else None,
    )


def to_unit_range(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images of a batch -> float32 in [0, 1] on `device`; uint8 is what crosses to the device."""
    return images.to(device, non_blocking=True).float().div_(255)


def _open(path: Path) -> Image.Image:
    """Open lazily: the header is read and judged, no pixel is decoded yet."""
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} not found.") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: not a readable image ({error}). Replace the file or take it off the list."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{path}: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}. Cut it into tiles."
        )
    return image


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Image file -> (H, W, 3) uint8 RGB, upright by its EXIF orientation. Grey, palette and CMYK are converted.

    Raises ValueError for what is no readable image, is too large or has more than 8 bits of grey, naming the file.
    """
    with _open(path) as image:
        if image.mode in DEEP_MODES or image.mode.startswith("I;16"):
            raise ValueError(
                f"{path}: one channel of more than 8 bits (mode {image.mode}); conversion would cut its values off at "
                "255. Scale it to 8 bits first."
            )
        try:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{path}: cannot be decoded ({error}). Replace the file or take it off the list."
            ) from error


def read_ids(path: Path, labels: LabelMap) -> NDArray[np.uint8]:
    """Index mask file (8-bit grey or palette) -> (H, W) uint8 train ids, void as 255.

    Raises ValueError for colour masks, 16-bit masks and values outside the label map, naming the file.
    """
    with _open(path) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(
                f"{path}: a mask must hold one 8-bit class index per pixel (grey or palette PNG), this one is of mode "
                f"{image.mode}. Convert colours to the indices of label map '{labels.name}' first."
            )
        if isinstance(image, ImageFile.ImageFile) and image.tile and image.tile[0][3] in ("L;2", "L;4"):
            raise ValueError(
                f"{path}: a grey mask of 2 or 4 bits, whose values reading stretches to 0..255. Save it with 8 bits."
            )
        try:
            ids = np.asarray(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{path}: cannot be decoded ({error}). Replace the file or take it off the list."
            ) from error
    return labels.encode(ids, path=path)


def read_pair(image_path: Path, mask_path: Path, labels: LabelMap, *, name: str) -> Sample:
    """Image and mask of one sample. Raises ValueError where their sizes differ."""
    image, mask = read_rgb(image_path), read_ids(mask_path, labels)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{mask_path}: the mask is {mask.shape[1]} x {mask.shape[0]}, its image {image_path} is "
            f"{image.shape[1]} x {image.shape[0]} (width x height). Masks must have their image's size; resize masks "
            "with nearest neighbour only."
        )
    return Sample(image=image, mask=mask, name=name)

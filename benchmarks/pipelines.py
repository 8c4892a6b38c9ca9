"""Training data from files to collated batches, on one core: Veduta's pipelines against what others build.

    PYTHONPATH=src .bench/bin/python -m benchmarks.pipelines

Photos of 500 x 375 (JPEG, some 90 kB) with palette PNG masks, in the page cache; each rival is a data set under torch's
DataLoader without workers, Veduta's with all that its training does. Segmentation: zoom 0.5 to 2 (log-uniform), crop
513, flip. Classification: random resized crop 224, flip, RandAugment. Takes a minute or two; docs/benchmarks.md says
how to make .bench.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode, v2

from benchmarks.timing import Round, compare
from veduta.config import Augment, Data
from veduta.data import open_dataset
from veduta.data.augment.geometry import MEAN_COLOR
from veduta.data.batch import to_unit_range
from veduta.data.label_maps import VOC
from veduta.data.layout import FileDataset, Record
from veduta.data.loader import TrainLoader
from veduta.data.sample import SampleDataset
from veduta.data.stored import Stored
from veduta.labels import IGNORE_INDEX

HEIGHT, WIDTH, CROP, SMALL_CROP = 375, 500, 513, 224
SCALE = (0.5, 2.0)
BATCH_SIZE, NUM_PHOTOS = 4, 48
ROUNDS, WARMUP = 60, 4
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CPU = torch.device("cpu")

Pixels = NDArray[np.uint8]
Files = tuple[Path, Path]  # image, mask


def paint_photo(rng: np.random.Generator) -> Pixels:
    """Detail of all sizes, the finer the weaker, as in photographs, and things with hard edges."""
    photo = np.zeros((HEIGHT, WIDTH, 3))
    for cell in (128, 64, 32, 16, 8, 4, 2, 1):
        noise = rng.normal(size=(HEIGHT // cell + 2, WIDTH // cell + 2, 3))
        noise = 0.4 * noise + noise.mean(axis=2, keepdims=True)  # mostly brightness
        photo += cell**0.45 * cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    photo *= 45 / photo.std()
    for _ in range(12):
        corners = rng.integers((0, 0), (WIDTH, HEIGHT), (1, 2)) + rng.integers(-70, 70, (5, 2))
        thing = cv2.fillPoly(np.zeros_like(photo), [corners.astype(np.int32)], rng.uniform(-60, 60, 3).tolist())
        photo += thing
    return np.clip(photo + rng.uniform(90, 150, 3), 0, 255).astype(np.uint8)


def paint_mask(rng: np.random.Generator) -> Pixels:
    """Objects of VOC's classes on background, bordered by void."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre, axes = rng.integers((0, 0), (WIDTH, HEIGHT)).tolist(), rng.integers(20, 120, 2).tolist()
        angle, train_id = float(rng.uniform(0, 180)), int(rng.integers(1, 21))
        cv2.ellipse(mask, centre, axes, angle, 0, 360, train_id, -1)
        cv2.ellipse(mask, centre, axes, angle, 0, 360, IGNORE_INDEX, 5)
    return mask


def write_photos(root: Path) -> list[Files]:
    """A data set in Veduta's `folder` layout; its files are what every rival reads."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part / "train").mkdir(parents=True)
    names = "".join(f"{i},{name},{i},{i},{i}\n" for i, name in enumerate(VOC.names))
    (root / "classes.csv").write_text(f"index,name,r,g,b\n{names}255,void,255,255,255\n")
    files = []
    for number in range(NUM_PHOTOS):
        image, mask = (root / part / "train" / f"{number:03}" for part in ("images", "masks"))
        image, mask = image.with_suffix(".jpg"), mask.with_suffix(".png")
        Image.fromarray(paint_photo(rng)).save(image, quality=95)
        palette = Image.fromarray(paint_mask(rng)).convert("P")
        palette.putpalette(rng.integers(0, 256, 768).tolist())
        palette.save(mask)
        files.append((image, mask))
    return files


class Made(Dataset[object]):
    """What a function makes of the files of each sample."""

    def __init__(self, files: list[Files], make: Callable[[Path, Path], object]) -> None:
        self.files, self.make = files, make

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> object:
        return self.make(*self.files[index])


def batches_of(files: list[Files], make: Callable[[Path, Path], object]) -> Iterator[Tensor]:
    """A peer: shuffled, collated by torch, epoch after epoch. Gives the images, as `batches_of_veduta` does."""
    loader = DataLoader(Made(files, make), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    while True:
        yield from (images for images, _ in loader)


def batches_of_veduta(dataset: SampleDataset, crop: int, augment: Augment) -> Iterator[Tensor]:
    data = Data(dataset="folder", crop_size=(crop, crop), batch_size=BATCH_SIZE, augment=augment)
    for batch in TrainLoader(dataset, data, steps=1_000_000, seed=0, pin_memory=False):
        yield batch.images


def draw_zoom() -> float:
    return float(np.exp(np.random.default_rng().uniform(*np.log(SCALE))))


def open_with_pillow(image: Path) -> Tensor:
    return v2.functional.to_image(Image.open(image).convert("RGB"))


def open_with_torchvision(image: Path) -> Tensor:
    return tv_tensors.Image(decode_image(str(image), ImageReadMode.RGB))


NORMALISE = [
    v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
    v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
]


def torchvision_segmentation(
    image: Path, mask: Path, decode: Callable[[Path], Tensor], last: list[v2.Transform]
) -> tuple[Tensor, Tensor]:
    """As torchvision's documentation builds it: tv_tensors through a Compose, uint8 up to the `last` transforms.

    The zoom is drawn outside, since `ScaleJitter` draws it uniformly: more work. Its target_size is read as
    (width, height).
    """
    zoom, outside = draw_zoom(), {tv_tensors.Image: MEAN_COLOR, tv_tensors.Mask: IGNORE_INDEX}
    pipeline = v2.Compose(
        [
            v2.ScaleJitter(target_size=(WIDTH, HEIGHT), scale_range=(zoom, zoom)),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=outside),
            v2.RandomHorizontalFlip(),
            *last,
        ]
    )
    return pipeline(decode(image), tv_tensors.Mask(v2.functional.pil_to_tensor(Image.open(mask))[0]))


def whole_image_segmentation(image: Path, mask: Path, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """As toolkits built on OpenCV do it (mmsegmentation's transforms): the whole image and mask are resized, a crop of
    not too much of one class is searched for, the result is normalised to float32 on the CPU.
    """
    pixels = cv2.imdecode(np.frombuffer(image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    ids = np.array(Image.open(mask))
    zoom = draw_zoom()
    size = (int(WIDTH * zoom + 0.5), int(HEIGHT * zoom + 0.5))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    for _ in range(10):
        top = int(rng.integers(max(size[1] - CROP, 0) + 1))
        left = int(rng.integers(max(size[0] - CROP, 0) + 1))
        cropped = ids[top : top + CROP, left : left + CROP]
        classes, counts = np.unique(cropped, return_counts=True)
        counts = counts[classes != IGNORE_INDEX]
        if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
            break
    pixels, ids = pixels[top : top + CROP, left : left + CROP], cropped
    if rng.random() < 0.5:
        pixels, ids = cv2.flip(pixels, 1), cv2.flip(ids, 1)
    normalised = cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_BGR2RGB)
    cv2.subtract(normalised, (*MEAN, 0), normalised)
    cv2.multiply(normalised, (*(1 / s for s in STD), 1), normalised)
    borders = (0, CROP - pixels.shape[0], 0, CROP - pixels.shape[1], cv2.BORDER_CONSTANT)
    normalised = cv2.copyMakeBorder(normalised, *borders, value=0)
    ids = cv2.copyMakeBorder(ids, *borders, value=IGNORE_INDEX)
    planes = np.ascontiguousarray(normalised.transpose(2, 0, 1))
    return torch.from_numpy(planes), torch.from_numpy(ids.astype(np.int64))


def torchvision_classification(image: Path, _: Path, pipeline: v2.Compose, *, tensors: bool) -> tuple[Tensor, int]:
    """As torchvision's documentation builds it, on Pillow's images; or on tensors that torchvision decodes."""
    if tensors:
        return pipeline(decode_image(str(image), ImageReadMode.RGB)), 0
    return v2.functional.pil_to_tensor(pipeline(Image.open(image).convert("RGB"))), 0


def next_of(batches: Iterator[Tensor], *, to_float: bool = False) -> Callable[[], Tensor]:
    def call() -> Tensor:
        batch = next(batches)
        return to_unit_range(batch, CPU) if to_float else batch

    return call


def time_segmentation(files: list[Files], root: Path) -> None:
    dataset = open_dataset(Data(dataset="folder", root=str(root)), "train")
    ours = partial(batches_of_veduta, dataset, CROP, Augment(scale=SCALE, flip=0.5))
    rng = np.random.default_rng(0)

    def torchvision(decode: Callable[[Path], Tensor], last: list[v2.Transform]) -> Callable[[], Tensor]:
        return next_of(batches_of(files, partial(torchvision_segmentation, decode=decode, last=last)))

    rivals = {
        "Veduta": next_of(ours()),
        "Veduta, and float32 in [0, 1] on the CPU": next_of(ours(), to_float=True),
        "torchvision v2, Pillow": torchvision(open_with_pillow, []),
        "torchvision v2, Pillow, normalised float32": torchvision(open_with_pillow, NORMALISE),
        "torchvision v2, decode_image": torchvision(open_with_torchvision, []),
        "OpenCV, whole image, normalised float32": next_of(
            batches_of(files, partial(whole_image_segmentation, rng=rng))
        ),
    }
    for name, call in rivals.items():
        images = call()
        assert images.shape == (BATCH_SIZE, 3, CROP, CROP), name
    print(f"## Segmentation: batches of {BATCH_SIZE}, crop {CROP}\n")
    compare(repeat(rivals), warmup=WARMUP)


def record_of(key: tuple[int, Path]) -> Record:
    return Record(name=str(key[0]), image=Stored(key[1]), scene_class=key[0] % len(VOC.names))


def time_classification(files: list[Files], *, with_policy: bool) -> None:
    """With a policy: two operations, each done half of the time (the authors' ResNeSt); torchvision's own does both."""
    dataset = FileDataset(VOC, [(i, image) for i, (image, _) in enumerate(files)], record_of)
    augment = Augment(pipeline="imagenet", flip=0.5, policy="randaugment" if with_policy else "none")
    crop = [v2.RandomResizedCrop(SMALL_CROP, interpolation=InterpolationMode.BILINEAR), v2.RandomHorizontalFlip()]
    policies: dict[str, list[v2.Transform]] = {"": []}
    if with_policy:
        half = v2.RandomApply([v2.RandAugment(1, 12)])
        policies = {
            ": RandAugment(1, 12) half of the time, twice": [half, half],
            ": RandAugment(2, 12)": [v2.RandAugment(2, 12)],
        }
    rivals = {"Veduta": next_of(batches_of_veduta(dataset, SMALL_CROP, augment))}
    for decoder, tensors in {"Pillow": False, "decode_image": True}.items():
        for name, policy in policies.items():
            make = partial(torchvision_classification, pipeline=v2.Compose([*crop, *policy]), tensors=tensors)
            rivals[f"torchvision v2, {decoder}{name}"] = next_of(batches_of(files, make))
    for name, call in rivals.items():
        images = call()
        assert images.shape == (BATCH_SIZE, 3, SMALL_CROP, SMALL_CROP) and images.dtype == torch.uint8, name
    print(f"\n## Classification{' with RandAugment' * with_policy}: batches of {BATCH_SIZE}, crop {SMALL_CROP}\n")
    compare(repeat(rivals), warmup=WARMUP)


def repeat(rivals: dict[str, Callable[[], Tensor]]) -> Iterator[Round]:
    for _ in range(WARMUP + ROUNDS):
        yield {**rivals}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder))
        sizes = [path.stat().st_size / 1000 for path, _ in files]
        print(f"{len(files)} photos of {np.mean(sizes):.0f} kB, {min(sizes):.0f} to {max(sizes):.0f}\n")
        time_segmentation(files, Path(folder))
        time_classification(files, with_policy=False)
        time_classification(files, with_policy=True)

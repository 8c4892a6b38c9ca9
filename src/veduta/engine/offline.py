"""Offline inference: the images of a split as raw files for another runtime, fitted as the recipe's protocol says.

What comes back is read by predictions/raw_outputs.py: the files are named so that their outputs find their images.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veduta import __version__
from veduta.config import Recipe
from veduta.data.fit import LongerSide, Pixels, Size, Stretched
from veduta.data.sample import Sample, SampleDataset
from veduta.engine import multi_scale, single_scale
from veduta.engine.counting import READERS, read_ahead
from veduta.engine.predictions.names import Named, listed, match, names_of
from veduta.engine.predictions.raw_outputs import MIRRORED
from veduta.engine.progress import ProgressLine
from veduta.engine.protocols import in_words, open_protocol
from veduta.errors import Unreadable
from veduta.files import check_new_folder, new_folder, write_text
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.ops.arrays import interpolate

SETTINGS, LIST, CLASSES, IMAGES = "settings.json", "images.csv", "labels.txt", "images"
LONGEST_NAME = 200  # bytes of UTF-8: runtimes add to it, and file systems take 255

Fitted = Callable[[Pixels], Pixels]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an image lies in its file: RGB, little-endian, without a header.

    dtype: float32 from 0 to 1, or uint8 from 0 to 255. layout: height and width behind the channels, or before them.
    size: of every image; None: each has its own. stretched: brought to it as BlitzNet's first layer does.
    """

    dtype: Literal["float32", "uint8"] = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"
    size: Size | None = None
    stretched: bool = False

    def values(self, image: Pixels) -> NDArray[Any]:
        """(H, W, 3) uint8, fitted -> (3, *size) or (*size, 3)."""
        if self.stretched and self.size and self.dtype == "uint8":
            image = Stretched(self.size[0])(image)
        values: NDArray[Any] = image.transpose(2, 0, 1)
        if self.dtype == "float32":
            values = values.astype("<f4") / np.float32(255)
            if self.stretched and self.size:  # not in whole levels: these are the numbers that the network would see
                values = interpolate(values[None], self.size, "legacy")[0]
        return values if self.layout == "nchw" else values.transpose(1, 2, 0)


@dataclass(frozen=True)
class Prepared:
    """What was written. bytes: of the largest file and of all of them."""

    images: int
    form: Form
    mirrored: bool
    bytes: tuple[int, int]


def passes(recipe: Recipe) -> tuple[Fitted, bool, Size | None]:
    """How a protocol fits an image, whether it looks at the mirror image, and the size, where it is always the same.

    Raises ValueError for a protocol that looks at an image in pieces or in several sizes.
    """
    match open_protocol(recipe)[1]:
        case single_scale.Whole(mirrored=mirrored):
            return (lambda image: image), mirrored, None
        case single_scale.Square(fit=fit, side=side):
            return fit, False, (side, side)
        case single_scale.DeepLab(fit=fit):
            return fit, False, None
        case multi_scale.RefineNet(side=side, scales=(1.0,), mirrored=mirrored):
            return LongerSide(side), mirrored, (side, side)
    raise ValueError(
        f"protocol '{recipe.protocol}' shows the network windows or several sizes of an image, and joins what it says "
        "of them; raw outputs are of whole images in one size. Choose a protocol that shows those, such as --set "
        "protocol=whole; docs/offline.md lists them."
    )


def usual_size(recipe: Recipe) -> Size | None:
    """The size in which a protocol shows most images, where there is one. Raises ValueError as `passes` does."""
    fitted = passes(recipe)[2]
    return recipe.data.crop_size if recipe.protocol == "deeplab" else fitted


def form_for(info: ModelInfo, form: Form) -> Form:
    """With the size of an exported network, where it is fixed, and stretched to it, where images may be.

    Raises ValueError where `form` asks for a size that neither the network nor the protocol has.
    """
    fitted = passes(info.recipe)[2]
    fixed = tuple(length for length in info.exported.images[2:] if length) if info.exported else ()
    asked = form.size
    size = asked or (fixed if len(fixed) == 2 else None)
    if asked and len(fixed) == 2 and asked != fixed:
        raise ValueError(f"--size {_words(asked)}: the exported network takes {_words(fixed)}. Leave --size out.")
    if fitted and size and size != fitted:
        raise ValueError(
            f"protocol '{info.recipe.protocol}' shows {_words(fitted)}, not {_words(size)}. Change the protocol, or "
            f"its size: --set data.crop_size=[{size[0]},{size[1]}]."
        )
    stretched = size is not None and info.recipe.task == "detect_segment"
    if stretched and size and size[0] != size[1]:
        raise ValueError(f"--size {_words(size)}: BlitzNet sees squares. Give its own, such as 300x300.")
    return Form(dtype=form.dtype, layout=form.layout, size=size or fitted, stretched=stretched)


def prepare(
    info: ModelInfo, dataset: SampleDataset, out: Path, *, form: Form, data: str, split: str, line: ProgressLine
) -> Prepared:
    """Write out/images/NAME.bin, for mirror images NAME_Flip.bin, a list of them, the classes and the settings.

    form: see `form_for`. Raises FileExistsError where `out` exists, ValueError where an image does not have the size
    or its name could not be told from another one, and Unreadable for an image that cannot be read.
    """
    check_new_folder(out)
    fit, mirrored, _ = passes(info.recipe)
    names = names_of(dataset, line.count)
    stems = stems_of(names, info.labels)
    largest, total, rows = 0, 0, []
    with new_folder(out) as folder:
        for index, read in read_ahead(dataset, range(len(dataset)), most=2 * READERS):
            if not isinstance(read, Sample):
                raise Unreadable(f"{read}\nNothing was written: outputs of all images are needed for a score.")
            image = fit(read.image)
            shown = (image.shape[0], image.shape[1])
            if form.size and not form.stretched and shown != form.size:
                raise ValueError(
                    f"{read.name}: protocol '{info.recipe.protocol}' shows it in {_words(shown)}, and the network "
                    f"takes {_words(form.size)} (height x width). Export it with sizes left open, or choose another "
                    "protocol."
                )
            shown = form.size or shown
            path = folder / IMAGES / f"{stems[read.name]}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            files = {path: image} | ({_of_mirror(path): image[:, ::-1]} if mirrored else {})
            for file, pixels in files.items():
                file.write_bytes(form.values(pixels).tobytes())  # tofile would not say why a disk takes no more
                largest, total = max(largest, file.stat().st_size), total + file.stat().st_size
            written = [file.relative_to(folder).as_posix() for file in files]
            rows.append(_row(read, written, shown, info.labels))
            line.count("preparing", index + 1, len(dataset))
        _write_list(folder / LIST, rows)
        write_text(folder / CLASSES, info.labels.listed)
        settings = _settings(info, form, mirrored=mirrored) | {"data": data, "split": split, "images": len(rows)}
        write_text(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")
    return Prepared(images=len(rows), form=form, mirrored=mirrored, bytes=(largest, total))


def stems_of(names: Sequence[Named], labels: LabelMap) -> dict[str, str]:
    """What the file of each sample is called, without its ending: the last part of its name if that says which it is.

    Else its folders stay before it; some runtimes read a folder without those in it. Raises ValueError for names that
    are no file names, or that outputs could not be told apart by.
    """
    whole = {named.name: named.name for named in names}
    for name in whole:
        parts = PurePosixPath(name).parts
        if not parts or any(part.startswith((".", "/")) or "\0" in part for part in parts):
            raise ValueError(f"the sample '{name}' cannot be a file: a hidden or missing part in its name.")
        if len(parts[-1].encode(errors="replace")) > LONGEST_NAME:
            raise ValueError(f"the sample '{name}' cannot be a file: its name has more than {LONGEST_NAME} bytes.")
        if name.endswith(MIRRORED):
            raise ValueError(f"the sample '{name}' ends in {MIRRORED}, which mirror images are known by. Rename it.")
    flat = {name: PurePosixPath(name).name for name in whole}
    stems = flat if len({stem.casefold() for stem in flat.values()}) == len(flat) else whole
    found, _ = match(names, [*stems.values()], labels, source="the split")
    mistaken = [name for name, stem in stems.items() if found[name] != stem]
    if mistaken:
        raise ValueError(f"the names of {listed(mistaken)} and of other images of the split would be mixed up.")
    return stems


def _settings(info: ModelInfo, form: Form, *, mirrored: bool) -> dict[str, Any]:
    """What a runtime has to know of the files, and what they were made for."""
    recipe = info.recipe
    protocol, show = open_protocol(recipe)
    return {
        "veduta": __version__,
        "model": recipe.model,
        "weights_sha256": info.weights_sha256,
        "task": recipe.task,
        "protocol": recipe.protocol,
        "protocol_in_words": in_words(protocol, show, recipe),
        **asdict(form),
        "values": "RGB, 0 to 1" if form.dtype == "float32" else "RGB, 0 to 255",
        "mirrored": mirrored,
    }


def _row(sample: Sample, files: Sequence[str], shown: Size, labels: LabelMap) -> dict[str, Any]:
    height, width = sample.image.shape[:2]
    row: dict[str, Any] = {"name": sample.name, "file": files[0], "mirrored_file": "".join(files[1:])}
    row |= {"height": height, "width": width, "shown_height": shown[0], "shown_width": shown[1]}
    if sample.scene_class is not None:
        row |= {"class": sample.scene_class, "class_name": labels.names[sample.scene_class]}
    return row


def _write_list(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _of_mirror(path: Path) -> Path:
    return path.with_name(f"{path.stem}{MIRRORED}.bin")


def _words(size: Sequence[int]) -> str:
    return "x".join(map(str, size))

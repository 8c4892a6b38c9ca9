"""Runs an ONNX file on the images that `veduta offline prepare` wrote: a stand-in for an accelerator's own runner.

python runner.py MODEL.onnx PREPARED OUTPUTS [--form msame|310|npy] [--text] [--dtype ... --layout ... --size ...]

It needs Python, NumPy and ONNX Runtime, and nothing of Veduta. PREPARED has settings.json and images.csv in it, or is
any folder of .bin files of one size, of which the options say the rest. Outputs, of NAME.bin and of its mirror image:

msame  NAME_output_0.bin, NAME_Flip_output_0.bin   one for each output, as Ascend's msame names them; --text: as .txt
310    NAME_0.bin, NAME_0_Flip.bin                 as MindSpore's ports of ResNeSt and RefineNet name them
npy    NAME_class_logits.npy                       by the name of the output, with its shape
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

MIRRORED = "_Flip"
Size = tuple[int, int]  # height, width


def read_settings(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """dtype, layout and size of the images: of settings.json, else of the options."""
    path = folder / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"size": None}
    settings.setdefault("dtype", "float32")
    settings.setdefault("layout", "nchw")
    given = {key: getattr(arguments, key) for key in ("dtype", "layout", "size")}
    return settings | {key: value for key, value in given.items() if value is not None}


def find_images(folder: Path, size: Size | None) -> list[tuple[str, Path, Size | None]]:
    """Name without its ending, file, and size of every image, mirror images among them."""
    table = folder / "images.csv"
    if not table.is_file():
        return [(p.relative_to(folder).with_suffix("").as_posix(), p, size) for p in sorted(folder.rglob("*.bin"))]
    found: list[tuple[str, Path, Size | None]] = []
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            shown = int(row["shown_height"]), int(row["shown_width"])
            for name in filter(None, (row["file"], row["mirrored_file"])):
                found.append((name.removeprefix("images/").removesuffix(".bin"), folder / name, shown))
    return found


def read_image(path: Path, size: Size, dtype: str, layout: str) -> np.ndarray:
    """(1, 3, H, W) float32 from 0 to 1. Exits where the file does not hold as many numbers."""
    values = np.fromfile(path, {"float32": "<f4", "uint8": "u1"}[dtype])
    shape = (1, 3, *size) if layout == "nchw" else (1, *size, 3)
    if values.size != np.prod(shape):
        sys.exit(f"error: {path}: {values.size:,} numbers, expected {' x '.join(map(str, shape))} of {dtype}.")
    values = values.reshape(shape) if layout == "nchw" else values.reshape(shape).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values if dtype == "float32" else values.astype(np.float32) / np.float32(255))


def write(folder: Path, form: str, *, text: bool, name: str, number: int, output: str, values: np.ndarray) -> None:
    """One output of one image."""
    mirrored = MIRRORED if name.endswith(MIRRORED) else ""
    plain = name.removesuffix(MIRRORED)
    stem = {
        "msame": f"{name}_output_{number}",
        "310": f"{plain}_{number}{mirrored}",
        "npy": f"{plain}_{output}{mirrored}",
    }[form]
    path = folder / stem
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "npy":
        np.save(path.with_name(f"{path.name}.npy"), values)
    elif text:
        numbers = " ".join(map(str, values.astype(np.float32).reshape(-1)))  # with the digits that say which they are
        path.with_name(f"{path.name}.txt").write_text(f"{numbers}\n", encoding="ascii")
    else:
        values.astype("<f4").tofile(path.with_name(f"{path.name}.bin"))


def parse_size(text: str) -> Size:
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs an ONNX file on images that `veduta offline prepare` wrote.")
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("images", type=Path, help="the prepared folder, or any folder of .bin files")
    parser.add_argument("out", type=Path, help="the folder to make; must not exist")
    parser.add_argument("--form", choices=("msame", "310", "npy"), default="msame", help="how files are named")
    parser.add_argument("--text", action="store_true", help="numbers as text, as msame --outfmt TXT")
    parser.add_argument("--dtype", choices=("float32", "uint8"), help="of the images; default float32")
    parser.add_argument("--layout", choices=("nchw", "nhwc"), help="of the images; default nchw")
    parser.add_argument("--size", type=parse_size, help="HEIGHTxWIDTH of the images; default what the ONNX file takes")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; default all cores")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(f"error: {arguments.out} exists; nothing is overwritten.")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    outputs = [output.name for output in session.get_outputs()]
    settings = read_settings(arguments.images, arguments)
    fixed = tuple(length for length in source.shape[2:] if isinstance(length, int))
    size = tuple(settings["size"] or fixed)
    images = find_images(arguments.images, size if len(size) == 2 else None)
    if not images:
        sys.exit(f"error: {arguments.images} holds no images: neither images.csv nor files *.bin.")

    seconds = 0.0
    for done, (name, path, own) in enumerate(images, start=1):
        if own is None:
            sys.exit(f"error: {path}: its size is not known. Give --size HEIGHTxWIDTH.")
        image = read_image(path, own, settings["dtype"], settings["layout"])
        started = time.perf_counter()
        found = session.run(outputs, {source.name: image})
        seconds += time.perf_counter() - started
        for number, (output, values) in enumerate(zip(outputs, found, strict=True)):
            write(
                arguments.out,
                arguments.form,
                text=arguments.text,
                name=name,
                number=number,
                output=output,
                values=values,
            )
        if sys.stderr.isatty():
            print(f"\r{done:,}/{len(images):,} images ", end="", file=sys.stderr, flush=True)
    print(f"{1000 * seconds / len(images):.2f} ms an image; outputs: {', '.join(outputs)}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Fuzz harness of image and mask reading: damaged files give arrays or a ValueError; never a crash, hang or flood.

`python tests/fuzz_images.py --count 100000 [--kind NAME] [--seed N]`. The cases are shared out among the kinds of file.
Each damages a small real file and reads its header, image and mask in a worker process of limited memory. Another
exception, more than two seconds of one case or the death of the worker is a failure: its file is kept, and the case
number repeats it (`--kind NAME --first CASE --count 1`).
"""

import argparse
import io
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
from fuzz_readers import MUTATIONS
from PIL import Image

from veduta.data.images import read_header, read_mask, read_rgb
from veduta.data.label_maps import VOC
from veduta.data.stored import Stored

MOST_SECONDS = 2.0
MOST_MEMORY = 3 << 30  # an image of MAX_PIXELS takes 0.5 GiB, and more while it is converted
SILENCE = 30  # seconds of one case after which the worker is ended

SIZES = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x3FFF,
    0x4000,
    0x7FFF,
    0x8000,
    0xFFFF,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
]
SIZES.append((1 << 32) - 1)


def _photo() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(cv2.resize(small, (50, 38), interpolation=cv2.INTER_CUBIC).astype(np.uint8))


def _mask() -> Image.Image:
    mask = Image.fromarray((np.indices((38, 50)).sum(axis=0) // 9 % 21).astype(np.uint8))
    mask.putpalette(VOC.palette.tobytes())
    return mask


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def _two(image: Image.Image, kind: str) -> bytes:
    return _encoded(image, kind, save_all=True, append_images=[image.rotate(180)])


def make_seeds() -> dict[str, bytes]:
    """Kind of file -> a good file, small enough that damage meets its structure."""
    photo, mask, turned = _photo(), _mask(), Image.Exif()
    turned[0x0112] = 6
    clear = photo.convert("RGBA")
    clear.putalpha(photo.convert("L"))
    return {
        "jpeg": _encoded(photo, "JPEG", exif=turned, quality=60),
        "jpeg_progressive": _encoded(photo, "JPEG", progressive=True, quality=60),
        "jpeg_grey": _encoded(photo.convert("L"), "JPEG"),
        "jpeg_cmyk": _encoded(photo.convert("CMYK"), "JPEG"),
        "mpo": _two(photo, "MPO"),
        "png": _encoded(photo, "PNG", exif=turned, icc_profile=b"profile"),
        "png_alpha": _encoded(clear, "PNG"),
        "png_mask": _encoded(mask, "PNG"),
        "png_colors": _encoded(mask.convert("RGB"), "PNG"),
        "apng": _two(photo, "PNG"),
        "gif": _encoded(mask, "GIF", transparency=0),
        "gif_animated": _two(photo, "GIF"),
        "bmp": _encoded(photo, "BMP"),
        "bmp_mask": _encoded(mask, "BMP"),
        "webp": _encoded(photo, "WEBP", exif=turned),
        "webp_alpha": _encoded(clear, "WEBP", lossless=True),
        "webp_animated": _two(photo, "WEBP"),
        "tiff": _encoded(photo, "TIFF", exif=turned),
        "tiff_lzw": _encoded(photo, "TIFF", compression="tiff_lzw"),
        "tiff_jpeg": _encoded(photo, "TIFF", compression="jpeg"),
        "tiff_mask": _encoded(mask, "TIFF", compression="tiff_adobe_deflate"),
        "tiff_pages": _two(photo, "TIFF"),
    }


def claim(rng: random.Random, data: bytes) -> bytes:
    """A length, width or offset of another value, mostly near the beginning, where such numbers are."""
    place = rng.randrange(min(len(data), rng.choice((64, 256, len(data)))))
    size = rng.choice((2, 4))
    number = ((rng.choice(SIZES) + rng.choice((0, 0, 1, -1))) % (1 << 8 * size)).to_bytes(size, "little")
    return data[:place] + rng.choice((number, number[::-1])) + data[place + size :]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose checksums are put right, so that damage reaches the code behind them."""
    fixed, place = bytearray(data), 8
    while place + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, place)
        end = place + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[place + 4 : end]))
        place = end + 4
    return bytes(fixed)


def repeated_chunk(rng: random.Random, data: bytes) -> bytes:
    """A PNG with one of its chunks once more, or a hundred times."""
    places, place = [], 8
    while place + 12 <= len(data):
        places.append((place, place := place + 12 + struct.unpack_from(">I", data, place)[0]))
    start, end = rng.choice(places)
    target = rng.choice(places)[0]
    return data[:target] + data[start:end] * rng.choice((1, 2, 100)) + data[target:]


def damaged(kind: str, seed: bytes, case: int, run: int) -> bytes:
    """The file of one case; the same for the same numbers."""
    rng = random.Random(f"{kind} {run} {case}")
    data, png = seed, "png" in kind
    if png and rng.random() < 0.15:
        data = repeated_chunk(rng, data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice((*MUTATIONS, claim, claim, claim, claim))(rng, data or b"\0")
    return with_checksums(data) if png and rng.random() < 0.85 else data


def try_case(kind: str, seed: bytes, path: Path, case: int, run: int) -> bool:
    """Read one damaged file in every way: True where the image was read. What is no ValueError comes through."""
    path.write_bytes(damaged(kind, seed, case, run))
    start = time.process_time()  # of this process: others on the machine must not make it slow
    readable = False
    try:
        header = read_header(Stored(path))
        image = read_rgb(path)
        readable = True
        assert image.dtype == np.uint8 and image.shape == (*header.size, 3), (image.shape, header)
    except ValueError:
        pass
    try:
        mask = read_mask(path, VOC)
        assert mask.dtype == np.uint8 and mask.shape == header.size, (mask.shape, header)
    except ValueError:
        pass
    seconds = time.process_time() - start
    if seconds > MOST_SECONDS:
        raise TimeoutError(f"{seconds:.1f} s for one case")
    return readable


def work(kind: str, path: Path, first: int, count: int, run: int) -> None:
    """The worker: cases one after the other, each announced before it is tried."""
    seed = make_seeds()[kind]
    path.write_bytes(seed)
    read_rgb(path) if "animated" not in kind and kind not in ("apng", "tiff_pages") else read_header(Stored(path))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))
    good = 0
    for case in range(first, first + count):
        print(case, good, flush=True)
        signal.alarm(SILENCE)  # ends the process, also inside of a library
        good += try_case(kind, seed, path, case, run)
    print(first + count, good, flush=True)


def fuzz(kind: str, *, first: int, count: int, run: int, keep: Path) -> list[str]:
    """Try `count` cases; returns what failed, after each failure going on behind it."""
    failures: list[str] = []
    case, good, start, printed, peak = first, 0, time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        while case < first + count and len(failures) < 10:
            numbers = ["--first", str(case), "--count", str(first + count - case), "--seed", str(run)]
            command = [sys.executable, __file__, "--worker", str(path), "--kind", kind, *numbers]
            done = subprocess.run(command, capture_output=True, text=True)
            reached, fine = map(int, done.stdout.splitlines()[-1].split())
            good, case = good + fine, reached
            lines = done.stderr.splitlines()
            printed += len(lines)
            peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            if done.returncode:
                why = lines[-1] if lines else ""
                died = signal.Signals(-done.returncode).name if done.returncode < 0 else why
                failures.append(f"{kind} case {case}, seed {run}: {died}")
                keep.mkdir(exist_ok=True)
                (keep / f"{kind}-{run}-{case}").write_bytes(path.read_bytes())
                case += 1
    seconds = time.monotonic() - start
    speed = f"{case - first:,} cases in {seconds:.0f} s, {good:,} readable, {len(failures)} failed"
    print(f"{kind}: {speed}, {printed} lines on stderr, at most {peak // 1024} MB so far", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="cases, of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases")
    parser.add_argument("--kind", choices=list(make_seeds()), help="only this one; all without")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for the files of failures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.kind, args.worker, args.first, args.count, args.seed)
        return 0
    kinds = [args.kind] if args.kind else list(make_seeds())
    failures: list[str] = []
    for kind in kinds:
        failures += fuzz(kind, first=args.first, count=-(-args.count // len(kinds)), run=args.seed, keep=args.keep)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

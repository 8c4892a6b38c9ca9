"""Fuzz harness of the checkpoint readers: damaged files give a CheckpointError or arrays; never a crash, hang or flood.

`python tests/fuzz_readers.py --count 100000 [--reader NAME] [--seed N]`. Each case damages a small real file and reads
it in a worker process whose memory is limited to 200 MB more than it starts with. Another exception, more than a
second, or the death of the worker is a failure: its files are kept, and the case number repeats it
(`--first CASE --count 1`).
"""

import argparse
import io
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from checkpoint_writers import (
    frozen_variable,
    mindspore_entry,
    number,
    part,
    remade_table,
    shape_proto,
    varint,
    write_frozen_graph,
    write_mindspore,
    write_tf_bundle,
)
from safetensors.torch import save_file

from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint

MOST_SECONDS = 1.0
MOST_MEMORY = 200 << 20
WORKER_SILENCE = 60.0  # seconds without a sign; a case takes milliseconds, the start on a busy machine much longer

HUGE = [varint(n) for n in (0, 1, 127, 128, 1 << 16, 1 << 28, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63)]
HUGE += [varint(-1), b"\xff" * 10, b"\x80" * 12 + b"\1"]

Seed = dict[str, bytes]  # the files of one checkpoint, by name
Mutate = Callable[[random.Random, bytes], bytes]


def small_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv/weights": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "conv/biases": np.zeros(4, np.float32),
        "bn/half": np.ones(3, np.float16),
        "part": np.arange(12, dtype=np.int32).reshape(4, 3),
        "step": np.array(7),
        "flag": np.array([True, False]),
    }


def files_in(folder: Path) -> Seed:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_tf(folder: Path) -> None:
    slices = {"part": [[(0, 2), (0, -1)], [(2, 2), (0, -1)]]}
    text = {"graph": np.frombuffer(b"objects", np.uint8)}
    arrays = small_arrays() | {"brain": np.array([0x3F80], np.uint16)}
    write_tf_bundle(
        folder / "m", arrays, num_shards=2, slices=slices, bfloat16=["brain"], strings=text, block_bytes=120
    )


def write_graph(folder: Path) -> None:
    floats = number(1, 1) + part(2, shape_proto([5])) + part(5, np.ones(2, "<f4").tobytes())
    ints = number(1, 3) + part(2, shape_proto([2])) + number(7, -3) + number(7, 5)
    more = frozen_variable("filled", floats) + frozen_variable("ints", ints)
    write_frozen_graph(folder / "g.pb", small_arrays(), nodes=more)


def write_mind(folder: Path) -> None:
    write_mindspore(folder / "m.ckpt", small_arrays(), slices=2)
    with (folder / "m.ckpt").open("ab") as file:
        file.write(mindspore_entry("scalar", "Float32", [0], bytes(4)) + mindspore_entry("note", "str", [], b"text"))


def torch_content() -> object:
    base = torch.arange(12.0).view(3, 4)
    weights = OrderedDict(a=base, turned=base.T, half=base.bfloat16(), count=torch.tensor(3))
    optimizer = {"state": {0: {"momentum_buffer": base[1]}}, "lr": [0.1], "milestones": Counter([3, 5])}
    return {"state_dict": weights, "epoch": 3, "best_pred": np.float64(0.8), "optimizer": optimizer}


def write_torch(folder: Path) -> None:
    torch.save(torch_content(), folder / "m.pth")


def write_torch_old(folder: Path) -> None:
    torch.save(torch_content(), folder / "m.pth", _use_new_zipfile_serialization=False)


def write_safetensors(folder: Path) -> None:
    save_file({"a": torch.ones(3, 2), "b": torch.ones(2, dtype=torch.bfloat16)}, folder / "m.safetensors", {"by": "x"})


# Reader -> (what writes its seed, the path that is given to the reader).
READERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "tf_bundle": (write_tf, "m.index"),
    "frozen_graph": (write_graph, "g.pb"),
    "mindspore": (write_mind, "m.ckpt"),
    "torch_zip": (write_torch, "m.pth"),
    "torch_old": (write_torch_old, "m.pth"),
    "safetensors": (write_safetensors, "m.safetensors"),
    "folder": (write_tf, "."),
}


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def set_byte(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[place + 1 :]


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randrange(1, 20)) + data[place:]


def delete(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randrange(1, 20) :]


def duplicate(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 200))
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def splice(rng: random.Random, data: bytes) -> bytes:
    source, target, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 64)
    piece = data[source : source + length]
    return data[:target] + piece + data[target + len(piece) :]


def huge_number(rng: random.Random, data: bytes) -> bytes:
    place, value = rng.randrange(len(data)), rng.choice(HUGE)
    return data[:place] + value + data[place + rng.choice((0, 1, 1, len(value))) :]


def point_at_itself(rng: random.Random, data: bytes) -> bytes:
    """A number that says a place in this file, among them its own."""
    place = rng.randrange(len(data))
    target = rng.choice((place, 0, len(data) - 48, rng.randrange(len(data))))
    value = rng.choice((varint(max(target, 0)), max(target, 0).to_bytes(4, "little")))
    return data[:place] + value + data[place + len(value) :]


MUTATIONS: tuple[Mutate, ...] = (
    truncate,
    flip_bit,
    flip_bit,
    set_byte,
    set_byte,
    insert,
    delete,
    duplicate,
    splice,
    huge_number,
    huge_number,
    point_at_itself,
)


def damaged(reader: str, seed: Seed, case: int, run: int) -> Seed:
    """The files of one case; the same for the same numbers."""
    rng = random.Random(f"{reader} {run} {case}")
    files = dict(seed)
    # Mostly the file with structure; tensors' bytes have nothing to get wrong but their checksum.
    name = next(iter(n for n in files if n.endswith(".index")), None) if rng.random() < 0.8 else None
    name = name or rng.choice(list(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        files[name] = rng.choice(MUTATIONS)(rng, files[name] or b"\0")
    if name.endswith(".index") and rng.random() < 0.85:
        # Checksums would stop nearly every case at the gate, so they are put right and the code behind them is reached.
        # Truncated and longer files get their footer back too.
        if rng.random() < 0.5 and not files[name].endswith(seed[name][-48:]):
            files[name] = files[name][:-48] + seed[name][-48:]
        files[name] = remade_table(files[name])
    elif reader == "torch_zip" and rng.random() < 0.8:
        files = {"m.pth": damaged_archive(rng, seed["m.pth"])}
    if rng.random() < 0.02:
        files.pop(rng.choice(list(files)))
    return files


def damaged_archive(rng: random.Random, data: bytes) -> bytes:
    """A good zip archive with one damaged part, so that its checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        members = source.infolist()
        chosen = (
            next(m for m in members if m.filename.endswith("data.pkl")) if rng.random() < 0.8 else rng.choice(members)
        )
        for member in members:
            content = source.read(member)
            if member is chosen:
                for _ in range(rng.choice((1, 1, 2, 4))):
                    content = rng.choice(MUTATIONS)(rng, content or b"\0")
            target.writestr(member.filename, content)
    return out.getvalue()


def write_case(folder: Path, files: Seed) -> None:
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def make_seed(reader: str, folder: Path) -> Seed:
    """The good files of a reader, proven to be so; they lie in `folder` afterwards."""
    write, given = READERS[reader]
    write(folder)
    read_checkpoint(folder / given)
    return files_in(folder)


def try_case(reader: str, seed: Seed, folder: Path, case: int, run: int) -> bool:
    """Read one damaged checkpoint: True for arrays, False for a refusal. Any other exception comes through."""
    write_case(folder, damaged(reader, seed, case, run))
    start = time.process_time()  # of this process: others on the machine must not make it slow
    readable = False
    try:
        for array in read_checkpoint(folder / READERS[reader][1]).values():
            array.tobytes()  # every byte is there to be read
        readable = True
    except (CheckpointError, FileNotFoundError):
        pass
    seconds = time.process_time() - start
    if seconds > MOST_SECONDS:
        raise TimeoutError(f"{seconds:.1f} s for one case")
    return readable


def limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))


def work(reader: str, folder: Path, first: int, count: int, run: int) -> None:
    """The worker: cases one after the other, each announced before it is tried."""
    seed = make_seed(reader, folder)
    limit_memory()  # only now, when everything that is loaded late is loaded
    good = 0
    for case in range(first, first + count):
        print(case, good, flush=True)
        try:
            good += try_case(reader, seed, folder, case, run)
        except BaseException as error:  # also MemoryError and whatever a library invents
            print(f"failed {type(error).__name__}: {str(error)[:300]!r}", flush=True)
            raise
    print(first + count, good, flush=True)


class Worker:
    """A worker process, watched line by line."""

    def __init__(self, reader: str, folder: Path, first: int, count: int, run: int) -> None:
        numbers = ["--first", str(first), "--count", str(count), "--seed", str(run)]
        command = [sys.executable, __file__, "--worker", str(folder), "--reader", reader, *numbers]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, env=environment)
        self.case, self.good, self.failure = first, 0, ""

    def watch(self, progress: Callable[[int, int], None]) -> None:
        """Until it ends or is silent for too long; then `failure` says what was wrong, if anything."""
        assert self.process.stdout is not None
        pipe, rest = self.process.stdout.fileno(), b""
        while select.select([pipe], [], [], WORKER_SILENCE)[0]:
            data = os.read(pipe, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"failed "):
                    self.failure = line.decode("utf-8", "replace").removeprefix("failed ")
                elif line:
                    self.case, self.good = map(int, line.split())
            progress(self.case, self.good)
        else:
            self.failure = f"no end after {WORKER_SILENCE:.0f} s"
            self.process.kill()
        code = self.process.wait()
        if code and not self.failure:
            died = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self.errors.seek(0)
            self.failure = f"the worker died: {died}. {self.errors.read()[-600:]}"
        self.process.stdout.close()
        self.errors.close()


def fuzz(reader: str, *, first: int, count: int, run: int, keep: Path) -> list[str]:
    """Try `count` cases; returns what failed, after each failure going on behind it."""
    failures: list[str] = []
    case, good = first, 0
    start = shown = time.monotonic()

    def progress(at: int, fine: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(
                f"{reader}: {at - first:,} of {count:,}, {len(failures)} failed, {good + fine:,} readable", flush=True
            )

    memory = Path("/dev/shm")  # files in memory, where there is such a place
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        while case < first + count and len(failures) < 10:
            worker = Worker(reader, Path(folder), case, first + count - case, run)
            worker.watch(progress)
            good += worker.good
            case = worker.case
            if worker.failure:
                failures.append(f"{reader} case {case}, seed {run}: {worker.failure}")
                shutil.copytree(folder, keep / f"{reader}-{run}-{case}", dirs_exist_ok=True)
                case += 1
            for path in Path(folder).iterdir():
                path.unlink()
    seconds = time.monotonic() - start
    tried = f"{case - first:,} cases in {seconds:.0f} s ({(case - first) / seconds:,.0f} per second)"
    print(f"{reader}: {tried}, {good:,} readable, {len(failures)} failed", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000, help="cases for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases")
    parser.add_argument("--reader", choices=list(READERS), help="only this one; all without")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for the files of failures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.reader, args.worker, args.first, args.count, args.seed)
        return 0
    failures: list[str] = []
    for reader in [args.reader] if args.reader else READERS:
        failures += fuzz(reader, first=args.first, count=args.count, run=args.seed, keep=args.keep)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""The pickles in PyTorch files, followed without being run: what torch.save writes for weights, and nothing else.

PyTorch's own reader (`weights_only`) runs no foreign code, but a few bytes make it fill the memory: by
`bytearray(10**9)`, by bytes encoded again and again, by one list copied many times; or make it hash nested tuples
forever. So only a few globals pass here, only in calls as torch.save writes them, and what they copy is counted.
"""

import io
import mmap
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from veduta.legacy.errors import CheckpointError

_MOST_STEPS = 2_000_000  # of all pickles of a file; a tensor takes about 25
_MOST_CALLS = 60_000  # each makes at most about 1 KB, a tensor; and PyTorch takes a tenth of a millisecond for each
_MOST_ARGUMENTS = 1 << 18  # entries, sizes and letters that are copied, beside one for each step

_STORAGES = {  # name in a pickle -> bytes of an element
    "torch.storage.UntypedStorage": 1,
    **{f"torch.{kind}Storage": 1 for kind in ("Bool", "Byte", "Char")},
    **{f"torch.{kind}Storage": 2 for kind in ("BFloat16", "Half", "Short")},
    **{f"torch.{kind}Storage": 4 for kind in ("Float", "Int")},
    **{f"torch.{kind}Storage": 8 for kind in ("Double", "Long", "ComplexFloat")},
    "torch.ComplexDoubleStorage": 16,
}
_DTYPES = {str(value): value.itemsize for value in vars(torch).values() if isinstance(value, torch.dtype)}
_CALLED = {
    "_codecs.encode",  # how bytes are written
    "collections.Counter",  # in schedules of the learning rate
    "collections.OrderedDict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
NUMPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_LITERALS = {"NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}


def check_pickle(data: bytes, path: Path) -> None:
    """Raises CheckpointError where the pickle of an archive is not one of weights."""
    _Follower(path).follow(io.BytesIO(data))


def check_old_pickles(path: Path) -> None:
    """As `check_pickle`, for the old format: five pickles, the bytes of the tensors behind them.

    They are a mark, a version, the machine, the content, and the list of the storages whose bytes follow. That list
    has to be complete: PyTorch gives whatever was in the memory for a storage that it does not name.
    """
    follower = _Follower(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        keys = [follower.follow(data) for _ in range(5)][-1]  # type: ignore[arg-type]  # it reads as a file does
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise CheckpointError(f"{path}: no list of storages behind its content. Damaged file; copy it again.")
    if sorted(keys) != sorted(follower.storages):
        raise CheckpointError(f"{path}: holds bytes for other tensors than it speaks of. Damaged file; copy it again.")


@dataclass(eq=False)
class _Made:
    """What a pickle would make or name. size: entries of a dict, bytes of a storage. item: bytes of an element."""

    kind: str
    size: int = 0
    item: int = 0


class _Follower:
    """Takes the steps of pickles on a stack of its own, where _Made stands for everything that they would make.

    storages: those that were asked for, by key.
    """

    def __init__(self, path: Path) -> None:
        self.where, self.room = str(path), path.stat().st_size
        self.storages: dict[str, _Made] = {}
        self.steps = self.calls = self.copied = 0

    def follow(self, file: IO[bytes]) -> Any:
        """What one pickle would give: texts, numbers, tuples and lists as they are, all else as _Made."""
        try:
            return self._follow(file)
        except CheckpointError:
            raise
        except Exception as error:  # of any type: the steps of damaged pickles fail in many ways
            raise CheckpointError(f"{self.where}: its pickle is damaged ({error}); copy the file again.") from error

    def _follow(self, file: IO[bytes]) -> Any:
        stack: list[Any] = []
        outer: list[list[Any]] = []
        memo: dict[int, Any] = {}
        value: Any
        for opcode, value, _ in pickletools.genops(file):
            step = opcode.name
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise CheckpointError(f"{self.where}: a pickle of more than {_MOST_STEPS:,} steps. Made to harm?")
            if step in _LITERALS:
                stack.append(value)
            elif step in ("BINPUT", "LONG_BINPUT"):
                memo[value] = stack[-1]
            elif step in ("BINGET", "LONG_BINGET"):
                stack.append(memo[value])
            elif step in ("NEWTRUE", "NEWFALSE"):
                stack.append(step == "NEWTRUE")
            elif step == "EMPTY_DICT":
                stack.append(_Made("dict"))
            elif step == "EMPTY_LIST":
                stack.append([])
            elif step == "EMPTY_TUPLE":
                stack.append(())
            elif step == "GLOBAL":
                stack.append(self._named(value.replace(" ", ".")))
            elif step == "MARK":
                outer.append(stack)
                stack = []
            elif step == "TUPLE":
                items, stack = stack, outer.pop()
                stack.append(tuple(items))
            elif step in ("TUPLE1", "TUPLE2", "TUPLE3"):
                count = int(step[-1])
                stack[-count:] = [tuple(stack[k] for k in range(-count, 0))]
            elif step in ("APPEND", "APPENDS"):
                items, stack = (stack, outer.pop()) if step == "APPENDS" else ([stack.pop()], stack)
                if type(stack[-1]) is not list:
                    raise self._odd("it appends to what is no list")
                stack[-1].extend(items)
            elif step in ("SETITEM", "SETITEMS"):
                items, stack = (stack, outer.pop()) if step == "SETITEMS" else ([stack.pop(), stack.pop()][::-1], stack)
                self._set_items(stack[-1], items)
            elif step == "REDUCE":
                arguments = stack.pop()
                stack[-1] = self._call(stack[-1], arguments)
            elif step == "BUILD":
                state = stack.pop()
                self._build(stack[-1], state)
            elif step == "BINPERSID":
                stack[-1] = self._storage(stack[-1])
            elif step == "STOP":
                return stack.pop()
            elif step != "PROTO":
                raise self._odd(f"the step {step}")
        raise AssertionError("genops ends with STOP or an error")

    def _odd(self, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self.where}: its pickle is not as torch.save writes one for weights: {found}. Nothing of it was run. It "
            "is damaged, made to harm, or holds other things than weights; save them alone: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )

    def _named(self, name: str) -> _Made:
        if name in _CALLED or name in _STORAGES or name in _DTYPES:
            return _Made(name)
        raise CheckpointError(
            f"{self.where}: holds the code object {name} beside tensors; nothing of it was run. Where you trust it, "
            "load it with the program that wrote it and save only the weights: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )

    def _copy(self, count: int) -> None:
        self.copied += count
        if self.copied > _MOST_ARGUMENTS + self.steps:
            raise CheckpointError(f"{self.where}: its pickle copies the same parts many times. Made to harm?")

    def _set_items(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, _Made) or target.kind != "dict" or len(items) % 2:
            raise self._odd("it sets entries in what is no dict")
        for key in items[::2]:
            kind = key.kind if isinstance(key, _Made) else type(key).__name__
            # Tuples take forever to hash when they are nested cleverly, huge numbers are made to collide.
            if kind not in ("str", "int", "bool", "NoneType") or (kind == "int" and abs(key) >> 60):
                raise self._odd(f"a key is a {kind}, expected texts or numbers")
        target.size += len(items) // 2

    def _storage(self, wanted: Any) -> _Made:
        match wanted:
            case ("storage", _Made(kind=kind), str(key), str(), int(count), *view) if (
                kind in _STORAGES and re.fullmatch("[0-9]+", key) and count >= 0 and (not view or view == [None])
            ):
                if key not in self.storages:
                    self.storages[key] = _Made("storage", count * _STORAGES[kind], _STORAGES[kind])
                    self.room -= self.storages[key].size
                if self.room < 0:
                    raise self._odd("tensors of more bytes than the file has")
                return self.storages[key]
        raise self._odd("a reference that leads to no tensor's bytes")

    def _build(self, target: Any, state: Any) -> None:
        match target, state:
            case _Made(kind="dict"), _Made(kind="dict"):  # attributes of an OrderedDict: versions of the layers
                self._copy(state.size)
            case _Made(kind="dtype"), (int(), str(), None, None, None, -1, -1, 0):
                pass
            case _:
                raise self._odd("it sets the state of what is neither a dict nor a type of numpy")

    def _call(self, function: Any, arguments: Any) -> _Made:
        if not isinstance(function, _Made) or not isinstance(arguments, tuple):
            raise self._odd("it calls what is no function")
        self.calls += 1
        if self.calls > _MOST_CALLS:
            raise CheckpointError(f"{self.where}: a pickle of more than {_MOST_CALLS:,} calls. Made to harm?")
        parts = [part for part in arguments if isinstance(part, str | list | tuple | _Made)]
        self._copy(
            sum((part.size if part.kind == "dict" else 1) if isinstance(part, _Made) else len(part) for part in parts)
        )
        match function.kind.removeprefix("torch._utils."), arguments:
            case "collections.OrderedDict" | "collections.Counter", ():
                return _Made("dict")
            case "collections.Counter", (_Made(kind="dict", size=size),):
                return _Made("dict", size)
            case "collections.OrderedDict", ([*items],) if all(type(item) in (list, tuple) for item in items):
                made = _Made("dict")  # as Python 2 wrote them
                for item in items:
                    self._set_items(made, list(item[:3]))
                return made
            case "_rebuild_tensor" | "_rebuild_tensor_v2", (_Made(kind="storage") as storage, *place) if len(place) < 7:
                return self._tensor(storage, storage.item, place)
            case "_rebuild_tensor_v3", (_Made(kind="storage") as storage, _, _, _, _, _, _Made(kind=kind), *_):
                if kind in _DTYPES:
                    return self._tensor(storage, _DTYPES[kind], arguments[1:])
            case "_rebuild_parameter", (_Made(kind="tensor"), bool(), _):
                return _Made("tensor")
            case "torch.Size", (tuple(sizes),) if all(type(size) is int for size in sizes):
                return _Made("torch.Size")
            case "torch.device", (str(), *index) if index == [] or type(index[0]) is int:
                return _Made("torch.device")
            case "numpy.dtype", (str(code), _, copied) if code in NUMPY_TYPES and copied in (True, 1):
                return _Made("dtype")  # a copy: else its state would be set in the type that all of numpy shares
            case "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", (_Made(kind="dtype"), bytes_):
                if isinstance(bytes_, str) or (isinstance(bytes_, _Made) and bytes_.kind == "bytes"):
                    return _Made("number of numpy")
            case "_codecs.encode", (str(), "latin1"):
                return _Made("bytes")
        raise self._odd(f"an unusual call of {function.kind}")

    def _tensor(self, storage: _Made, item: int, place: Any) -> _Made:
        offset, size, stride = place[:3]
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
            raise self._odd("a tensor without sizes")
        if not all(type(number) is int and number >= 0 for number in (offset, *size, *stride)):
            raise self._odd("a tensor whose place is not given by numbers")
        last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        if all(size) and (last + 1) * item > storage.size:
            raise self._odd("a tensor that reaches out of its bytes")
        return _Made("tensor")

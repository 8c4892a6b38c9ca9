"""The processes that train together: which one this is, and what they tell each other.

Each is a rank of torch.distributed. One process alone is rank 0 of 1, sends nothing, waits for nobody, and needs no
PyTorch. Of all the others: every rank makes the same calls in the same order, or they wait for each other until the
time is up.
"""

import atexit
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from veduta.errors import RunStopped

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import Tensor

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)  # the longest that one rank waits for another: rank 0 draws, writes and sums up alone
# Groups that were left stay to the end of the process: the end of one waits for gloo's threads while it holds Python's
# lock, and such a thread may just wait for that lock to let go of a tensor.
_left: list[Any] = []

# Seconds before Python ends, in which these threads get its lock and let go. One that asks for it later is ended by
# Python in the midst of C++, which takes the process down: "terminate called without an active exception".
_LETTING_GO = 0.3

CAUSE_FIRST = 2.0  # seconds by which the rank that failed ends before those that merely lost it

_GONE = "gone"  # what a rank that ends before its work does tells the others in the store

_joins = 0  # so far, on every rank alike
_works = 0  # done by rank 0 for all so far
_waits = 0  # for all ranks so far


class LostRank(RunStopped):
    """Another process stopped answering."""


def rank() -> int:
    """The number of this process among all; 0 writes the run folder and speaks."""
    return dist.get_rank() if (dist := _company()) else 0


def world_size() -> int:
    """How many processes train together, on all machines."""
    return dist.get_world_size() if (dist := _company()) else 1


@contextlib.contextmanager
def joined(device: str) -> "Iterator[torch.device]":
    """Join the other processes, where the environment names any as torchrun does; gives this process's device.

    Raises ValueError where a device is missing, LostRank where another process does not come or goes away.
    """
    from veduta.device import collectives, select_device

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield select_device(device)
        return
    import torch.distributed as dist

    own = _own_device(device)
    if not _left:
        atexit.register(time.sleep, _LETTING_GO)
    global _joins
    _joins += 1
    with lost_rank_named():
        store, me, processes = _meeting_point()
        store = dist.PrefixStore(f"joined/{_joins}", store)  # type: ignore[attr-defined]
        dist.init_process_group(collectives(own), store=store, rank=me, world_size=processes, timeout=TIMEOUT)
        try:
            yield own
            gathered(None)  # nobody leaves while another still reads what it sent
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the store is gone with rank 0
                dist.distributed_c10d._get_default_store().set(_GONE, "")
            raise
        finally:
            _left.append(dist.group.WORLD)
            dist.destroy_process_group()


@functools.cache
def _meeting_point() -> tuple[Any, int, int]:
    """Where the processes meet: one for all the times that they do, for rank 0 cannot move it while others come."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", timeout=TIMEOUT))


def _own_device(name: str) -> "torch.device":
    from veduta.device import make_current, select_device

    number, processes = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        own = select_device(name, process=number, processes=processes)
    except ValueError:
        if number == 0:
            raise
        time.sleep(CAUSE_FIRST)
        raise RunStopped("", exit_code=2) from None  # the first process of this machine says it
    make_current(own)
    return own


@contextlib.contextmanager
def lost_rank_named() -> Iterator[None]:
    """What torch.distributed raises when a connection breaks becomes a LostRank; other errors stay what they are."""
    try:
        yield
    except RuntimeError as error:
        from veduta.device import is_collective_failure

        if not is_collective_failure(error):
            raise
        raise _lost(str(error).splitlines()[0]) from error


def _lost(why: str) -> LostRank:
    time.sleep(CAUSE_FIRST)
    return LostRank(
        f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')} lost another process: {why}\nThe "
        "one that stopped first says why; what was saved before is intact, and --resume goes on from there."
    )


def sum_over_ranks(values: "Tensor") -> "Tensor":
    """The sum of what all ranks give, the same on every rank, without a gradient. Any shape, any dtype."""
    values = values.detach()
    if dist := _company():
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean_over_ranks(values: "Tensor") -> "Tensor":
    """The mean of what all ranks give, the same on every rank, without a gradient."""
    return sum_over_ranks(values) / world_size() if _company() else values.detach()


def learnt_sum_over_ranks(values: "Tensor") -> "Tensor":
    """The sum over all ranks for a loss that every rank computes from it alike.

    Its gradient is world_size times the own part's, so that the mean over ranks, which is what DistributedDataParallel
    takes, is the gradient of one process that holds everything.
    """
    if not _company():
        return values
    return sum_over_ranks(values) + world_size() * (values - values.detach())


def stacked_over_ranks(values: "Tensor") -> "Tensor":
    """(...) -> (world_size, ...): what every rank gives, in the order of ranks, without a gradient."""
    stacked = values.new_zeros((world_size(), *values.shape))
    stacked[rank()] = values.detach()
    return sum_over_ranks(stacked)  # every backend sums; not every one gathers


def take_from_first(tensors: "Iterable[Tensor]") -> None:
    """Every rank's tensors become those of rank 0, in place."""
    if dist := _company():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def share_of_rank(num_samples: int, rank: int, world_size: int) -> range:
    """The samples that one rank evaluates: over all ranks each once, in order, none padded, none left out."""
    return range(num_samples * rank // world_size, num_samples * (rank + 1) // world_size)


def gathered(value: T) -> list[T]:
    """The Python objects of all ranks, in their order, on every rank. For small ones: they are pickled."""
    if not (dist := _company()):
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # every place is filled


def from_first(value: T) -> T:
    """Rank 0's value, on every rank."""
    if not (dist := _company()):
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def on_first(work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, on every rank, for work that one process does for all and that may take hours.

    An error of it leaves rank 0 as it is, the others as a RunStopped without words: they only end.
    """
    if not (dist := _company()):
        return work()
    global _works
    _works += 1
    store, key = dist.distributed_c10d._get_default_store(), f"on_first/{_works}"
    result: T | None = None
    fault: Exception | None = None
    if rank() == 0:
        try:
            result = work()
        except Exception as error:
            fault = error
        store.set(key, "done")
    else:
        while not store.check([key]):  # no time limit: a rank 0 that is gone takes the store with it
            time.sleep(0.1)
    failed, result = from_first((fault is not None, result))
    if fault is not None:
        raise fault
    if failed:
        time.sleep(CAUSE_FIRST)
        raise RunStopped("")
    return result  # type: ignore[return-value]  # a T where it did not fail


def wait_for_all(meanwhile: Callable[[], object]) -> None:
    """Returns when every rank has come here, which may take hours; `meanwhile` is called while it lasts, and may raise.

    What is sent from rank to rank has a time limit, and shares of one work may take unequal times.
    """
    if not (dist := _company()):
        return
    global _waits
    _waits += 1
    store, key = dist.distributed_c10d._get_default_store(), f"wait_for_all/{_waits}"
    arrived = store.add(key, 1)
    while arrived < world_size():
        if store.check([_GONE]):
            raise _lost("it has stopped")
        meanwhile()
        time.sleep(0.05)
        arrived = store.add(key, 0)


def said_once(error: Exception) -> Exception:
    """What to raise on every rank for a user's mistake that all of them know: rank 0 says it, the others only end."""
    return error if rank() == 0 else RunStopped("", exit_code=2)


def first_then_others(work: Callable[[], T]) -> T:
    """What `work` gives, of each rank its own; rank 0 goes before, so that a mistake that all would find is said once.

    It may take hours, and ends as `on_first` does.
    """
    own: list[T] = []
    on_first(lambda: own.append(work()))
    return own[0] if own else work()


class Agreement:
    """On stopping together: a signal reaches one rank, and all must act on it at the same step."""

    def __init__(self) -> None:
        self._said = False
        self._asked: tuple[dist.Work, Tensor] | None = None

    def any(self, flag: bool) -> bool:
        """Once a step, with True from a rank that wants it: True on all ranks at the next step, and from then on.

        The answer to the last question is read when the next is asked, so nobody waits for a device. Alone: `flag`.
        """
        if not (dist := _company()):
            return flag
        import torch

        self._said = self._said or flag
        asked = self._asked
        said = torch.tensor(self._said, dtype=torch.uint8)
        self._asked = dist.all_reduce(said, dist.ReduceOp.MAX, async_op=True), said
        if asked is None:
            return False
        work, answer = asked
        work.wait()
        self._said = self._said or bool(answer)
        return bool(answer)


def _company() -> Any:
    """torch.distributed, where this process has joined others; else None, and without importing it."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None

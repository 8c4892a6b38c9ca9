"""Promises of the ranks: all of them hear the same, one alone waits for nobody, and each has a device of its own."""

import time
from datetime import timedelta
from typing import Any

import pytest
import torch
from crew import run_ranks

from veduta import device, ranks
from veduta.device import select_device
from veduta.errors import RunStopped

AROUND = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}


def heard() -> dict[str, Any]:
    """What one of three ranks hears: rank r says something that depends on r."""
    ranks.CAUSE_FIRST = 0
    me = ranks.rank()
    found: dict[str, Any] = {"rank": me, "world_size": ranks.world_size()}
    mine = torch.tensor([me + 1.0, 10.0], requires_grad=True)
    total = ranks.sum_over_ranks(mine)
    found["sum"], found["learns"], found["own"] = total.tolist(), total.requires_grad, mine.tolist()
    found["count"] = ranks.sum_over_ranks(torch.tensor(2**40 + me)).item()
    found["mean"] = ranks.mean_over_ranks(torch.tensor(me)).item()
    found["stacked"] = ranks.stacked_over_ranks(mine).tolist()
    # (sum of all)², of which every rank has the same value and a gradient for its own part.
    ranks.learnt_sum_over_ranks(mine).square().sum().backward()
    assert mine.grad is not None
    found["gradient"] = mine.grad.tolist()
    found["gathered"] = ranks.gathered({"rank": me})
    found["from_first"] = ranks.from_first(f"rank {me}")
    found["on_first"] = ranks.on_first(lambda: ranks.rank() * 10 + 7)
    found["fault"] = None
    try:
        ranks.on_first(_fail)
    except (RunStopped, OSError) as error:
        found["fault"] = (type(error).__name__, str(error))
    found["each"] = ranks.first_then_others(lambda: ranks.rank() * 10)
    found["said"] = type(ranks.said_once(ValueError("a mistake"))).__name__
    time.sleep(0.5 * me)
    calls: list[int] = []
    ranks.wait_for_all(lambda: calls.append(me))
    found["waited"] = len(calls)
    agreement = ranks.Agreement()
    found["agreed"] = [agreement.any(me == 1 and step == 2) for step in range(6)]
    quiet = ranks.Agreement()
    found["quiet"] = [quiet.any(False) for _ in range(3)]
    return found


def _fail() -> None:
    raise OSError("the disk is full")


@pytest.fixture(scope="module")
def three() -> list[dict[str, Any]]:
    return run_ranks(heard, 3)


def test_ranks_are_counted(three: list[dict[str, Any]]) -> None:
    assert [(found["rank"], found["world_size"]) for found in three] == [(0, 3), (1, 3), (2, 3)]


def test_a_sum_is_that_of_all_ranks_and_carries_no_gradient(three: list[dict[str, Any]]) -> None:
    for me, found in enumerate(three):
        assert found["sum"] == [6, 30] and not found["learns"]
        assert found["own"] == [me + 1, 10]  # what was given stays
        assert found["count"] == 3 * 2**40 + 3
        assert found["mean"] == 1


def test_what_is_stacked_or_gathered_lies_in_the_order_of_ranks(three: list[dict[str, Any]]) -> None:
    for found in three:
        assert found["stacked"] == [[1, 10], [2, 10], [3, 10]]
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]


def test_the_mean_over_ranks_of_a_learnt_sums_gradients_is_that_of_one_process(three: list[dict[str, Any]]) -> None:
    for found in three:
        assert found["gradient"] == [3 * 2 * 6, 3 * 2 * 30]  # three times: each part is one rank's alone


def test_what_the_first_says_holds_for_all(three: list[dict[str, Any]]) -> None:
    for found in three:
        assert found["from_first"] == "rank 0" and found["on_first"] == 7


def test_a_fault_of_the_first_stops_all_and_is_told_once(three: list[dict[str, Any]]) -> None:
    assert [found["fault"] for found in three] == [("OSError", "the disk is full"), *[("RunStopped", "")] * 2]


def test_what_is_each_ranks_own_is_made_by_each(three: list[dict[str, Any]]) -> None:
    assert [found["each"] for found in three] == [0, 10, 20]


def test_a_mistake_that_all_know_is_said_by_the_first(three: list[dict[str, Any]]) -> None:
    assert [found["said"] for found in three] == ["ValueError", "RunStopped", "RunStopped"]


def test_those_that_are_done_wait_for_the_last_and_do_something_meanwhile(three: list[dict[str, Any]]) -> None:
    assert three[0]["waited"] > three[1]["waited"] > three[2]["waited"] == 0


def test_all_stop_at_the_same_step_the_one_after_a_rank_asked_for_it(three: list[dict[str, Any]]) -> None:
    for found in three:
        assert found["agreed"] == [False, False, False, True, True, True]
        assert found["quiet"] == [False, False, False]


def test_one_alone_is_the_first_of_one_and_hears_itself() -> None:
    with ranks.joined("cpu") as own:
        assert own == torch.device("cpu")
        assert (ranks.rank(), ranks.world_size()) == (0, 1)
        values = torch.tensor([0.1, 0.2], requires_grad=True)
        assert torch.equal(ranks.sum_over_ranks(values), values) and not ranks.sum_over_ranks(values).requires_grad
        assert torch.equal(ranks.mean_over_ranks(values), values)
        assert ranks.learnt_sum_over_ranks(values) is values
        assert torch.equal(ranks.stacked_over_ranks(values), values[None])
        assert ranks.gathered("a") == ["a"] and ranks.from_first("a") == "a" and ranks.on_first(lambda: "a") == "a"
        assert [ranks.Agreement().any(flag) for flag in (False, True)] == [False, True]


def test_a_rank_that_does_not_come_is_missed_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(ranks, "CAUSE_FIRST", 0)
    for name, value in {**AROUND, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ranks.LostRank, match=r"(?s)rank 0 of 2 .*--resume"), ranks.joined("cpu"):
        pass
    assert ranks.world_size() == 1
    ranks._meeting_point.cache_clear()


@pytest.mark.usefixtures("_two_accelerators")
def test_a_missing_device_is_told_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "CAUSE_FIRST", 0)
    for name, value in {**AROUND, "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="3 processes .* has 2"), ranks.joined("auto"):
        pass
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RunStopped, match="^$") as stopped, ranks.joined("auto"):
        pass
    assert stopped.value.exit_code == 2


def test_only_a_broken_connection_is_a_lost_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "CAUSE_FIRST", 0)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"), ranks.lost_rank_named():
        torch.rand(2, 3) @ torch.rand(2, 3)
    with pytest.raises(ranks.LostRank, match="Connection closed by peer"), ranks.lost_rank_named():
        raise RuntimeError("[pair.cc:538] Connection closed by peer [127.0.0.1]:5")


@pytest.fixture
def _two_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_available", lambda kind: True)
    monkeypatch.setattr(device, "_count", lambda kind: 1 if kind == "mps" else 2)


@pytest.mark.usefixtures("_two_accelerators")
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_a_machine_takes_a_device_of_its_own(name: str) -> None:
    found = [select_device(name, process=process, processes=2) for process in range(2)]
    assert found == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert select_device("cpu", process=1, processes=2) == torch.device("cpu")


@pytest.mark.usefixtures("_two_accelerators")
@pytest.mark.parametrize(
    ("name", "processes", "message"),
    [
        ("auto", 3, "3 processes .* has 2 cuda devices"),
        ("cuda:1", 2, "'cuda:1' is one device for 2 processes. Use cuda"),
        ("cuda:2", 1, "'cuda:2' is not on this machine, which has 2"),
        ("mps", 2, "mps devices train in one process"),
        ("cuda:x", 1, "'cuda:x' is not known"),
        ("gpu", 1, "'gpu' is not known"),
    ],
)
def test_a_device_that_cannot_be_had_is_named(name: str, processes: int, message: str) -> None:
    for process in range(processes):  # every process says it, so that none waits for another
        with pytest.raises(ValueError, match=message):
            select_device(name, process=process, processes=processes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the device is there")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"'cuda' is not available on this machine: .*\. Use auto or cpu"):
        select_device("cuda")


@pytest.mark.parametrize(
    ("kind", "backends"), [("cpu", "cpu:gloo"), ("cuda", "cpu:gloo,cuda:nccl"), ("npu", "cpu:gloo,npu:hccl")]
)
def test_tensors_of_every_device_and_of_the_cpu_have_a_way(
    kind: str, backends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Device:
        type = kind

    assert device.collectives(Device()) == backends  # type: ignore[arg-type]  # torch names no npu without its plug-in

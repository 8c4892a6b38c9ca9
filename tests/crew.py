"""Several processes that have joined each other over the CPU, for tests of what they do together."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from veduta import ranks

T = TypeVar("T")

# Processes are forked from one that has imported torch, which takes seconds, and done nothing with it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["veduta.ranks", "numpy", "pytest"])


def run_ranks(work: Callable[[], T], world_size: int) -> list[T]:
    """What `work`, a function of a test module, returns on each of so many ranks, in their order.

    Starting takes its time: a module does it once and asserts on what comes back.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with ProcessPoolExecutor(world_size, CONTEXT) as pool:
            results = [pool.submit(_run, work, rank, world_size, port) for rank in range(world_size)]
            return [result.result(timeout=120) for result in results]


def _run(work: Callable[[], T], rank: int, world_size: int, port: int) -> T:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = str(world_size)
    torch.set_num_threads(1)
    with ranks.joined("cpu"):  # twice, as the stages of a recipe do
        time.sleep(0.1 * rank)
    with ranks.joined("cpu"):
        return work()

"""Timing: how long a call takes, as the median over blocks of calls with an interval that assumes no distribution.

`timed` times one callable, `compared` several in turn, so that a machine that slows down slows all of them. Nothing here knows of networks.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from prunescope.registry import unknown
from prunescope.types import ConfigError

BLOCK_SECONDS = 1e-3  # a block is long enough for the clock's own cost (0.1 us) not to be seen
LEAST_BLOCKS, MOST_BLOCKS = 7, 1000  # six blocks are the fewest whose extremes hold the median 95 times in 100
MOST_CALLS = 1 << 16
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: one number for each block of `calls` calls, in the order in which they were made."""

    blocks: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        """Median milliseconds of a call."""
        return statistics.median(self.blocks)

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) milliseconds that hold the median with 95 % confidence; see `median_interval`."""
        return median_interval(self.blocks)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the blocks, in milliseconds."""
        low, _, high = statistics.quantiles(self.blocks, n=4, method="inclusive") if len(self.blocks) > 1 else self.blocks * 3
        return low, high

    def over(self, other: Timing) -> tuple[float, float, float]:
        """(median, low, high) of this time divided by `other`'s, block by block: both come from one call of `compared`."""
        ratios = [a / b for a, b in zip(self.blocks, other.blocks, strict=True) if b > 0]
        if not ratios:
            raise ConfigError("the clock did not move while the other call was timed: give it more seconds")
        return (statistics.median(ratios), *median_interval(ratios))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """(low, high): the narrowest pair of order statistics, as far from one end as from the other, that holds the median.

    The median lies below the k-th smallest of n independent values with probability P(Binomial(n, 1/2) < k). With fewer than six values
    no pair reaches 95 %; then it is the smallest and the largest.
    Source: David & Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1.

    >>> median_interval([5, 1, 4, 2, 3, 6])
    (1, 6)
    >>> median_interval(range(1, 101))
    (40, 61)
    """
    ordered, n = sorted(values), len(values)
    if not n:
        raise ConfigError("no values: expected at least one to take a median of")
    outside, ways, k = 0, 1, 0  # `outside` of 2**n outcomes have fewer than k values below the median
    while (outside + ways) * 2 <= (1 - confidence) * 2**n and 2 * (k + 1) <= n:
        outside += ways
        ways = ways * (n - k) // (k + 1)
        k += 1
    k = max(1, k)
    return ordered[k - 1], ordered[n - k]


def timed(
    call: Callable[[], object],
    *,
    seconds: float = 0.1,
    warmup: int = 3,
    threads: int = 1,
    clock: str | Callable[[], float] = "wall",
    synchronise: Callable[[], object] | None = None,
) -> Timing:
    """Milliseconds that `call()` takes, in blocks of calls that last a millisecond or more, for about `seconds`.

    warmup       calls that are not timed: memory touched for the first time can cost more than the work itself
    threads      torch's threads meanwhile, put back afterwards
    clock        "wall"; "processor": processor time of all threads, which others on the machine do not disturb and which is the latency
                 only where one thread works; or a function that gives seconds
    synchronise  called at the end of each block, to wait for a device (see `synchroniser`)

    >>> ticks = iter(range(10**6))
    >>> timed(lambda: None, clock=lambda: next(ticks)).median  # a clock that moves a second whenever it is looked at
    1000.0
    """
    return compared({"": call}, seconds=seconds, warmup=warmup, threads=threads, clock=clock, synchronise=synchronise)[""]


def compared(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 0.1,
    warmup: int = 3,
    threads: int = 1,
    clock: str | Callable[[], float] = "wall",
    synchronise: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Milliseconds of several calls, a block of each in turn, forth and back, for about `seconds` each; options as in `timed`."""
    now = _clock(clock)
    if threads < 1:
        raise ConfigError(f"threads {threads!r}: expected at least 1")
    blocks: dict[str, list[float]] = {name: [] for name in calls}
    with threads_set(threads), _no_collection():
        counts = {name: _calls(call, warmup, now, synchronise) for name, call in calls.items()}
        spent = 0.0
        for number in range(MOST_BLOCKS):
            if number >= LEAST_BLOCKS and spent >= seconds * len(calls):
                break
            for name in list(calls) if number % 2 else reversed(list(calls)):
                taken = _block(calls[name], counts[name], now, synchronise)
                blocks[name].append(taken / counts[name] * 1e3)
                spent += taken
    return {name: Timing(tuple(found), counts[name]) for name, found in blocks.items()}


def synchroniser(device: torch.device | str) -> Callable[[], object] | None:
    """The function that waits until `device` has done its work; None for the CPU, which never returns before that."""
    device = torch.device(device)
    if device.type == "cpu":
        return None
    return lambda: torch.accelerator.synchronize(device)


def _clock(clock: str | Callable[[], float]) -> Callable[[], float]:
    if callable(clock):
        return clock
    if clock not in CLOCKS:
        raise ConfigError(unknown("clock", clock, list(CLOCKS)))
    return CLOCKS[clock]


def _calls(call: Callable[[], object], warmup: int, now: Callable[[], float], wait: Callable[[], object] | None) -> int:
    """How many calls make a block, found by doubling, after the warm-up."""
    for _ in range(warmup):
        call()
    count = 1
    while count < MOST_CALLS and (taken := _block(call, count, now, wait)) < BLOCK_SECONDS:
        count = min(MOST_CALLS, count * 2 if taken * 8 > BLOCK_SECONDS else count * 8)
    return count


def _block(call: Callable[[], object], count: int, now: Callable[[], float], wait: Callable[[], object] | None) -> float:
    start = now()
    for _ in range(count):
        call()
    if wait is not None:
        wait()
    return now() - start


@contextlib.contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """`threads` threads for torch inside, what there were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection in the middle of a block."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()

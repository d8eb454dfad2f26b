"""Times on a clock that the tests turn."""

import pytest
import torch

from prunescope.crossing import crossing
from prunescope.measures.breakeven import Point, from_points
from prunescope.measures.timing import LEAST_BLOCKS, Timing, compared, median_interval, timed
from prunescope.types import ConfigError


class Clock:
    """Seconds that pass only while something works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def call():
            self.now += seconds

        return call


def test_the_median_has_the_interval_of_order_statistics():
    """By hand from the binomial: of 10 values the second and the ninth hold the median with 97.9 %, the third and eighth with 89.1 %."""
    assert median_interval(list(range(1, 11))) == (2, 9)
    assert median_interval([3, 1, 2]) == (1, 3), "too few for 95 %: the extremes"
    assert median_interval([7]) == (7, 7)
    with pytest.raises(ConfigError, match="no values"):
        median_interval([])


def test_blocks_hold_many_short_calls_and_one_long_one():
    clock = Clock()
    short, long = timed(clock.work(1e-6), clock=clock), timed(clock.work(0.05), clock=clock)
    assert short.median == pytest.approx(1e-3)
    assert short.calls >= 1000
    assert long.median == pytest.approx(50)
    assert (long.calls, len(long.blocks)) == (1, LEAST_BLOCKS)
    assert long.interval == pytest.approx((50, 50))


def test_warm_up_is_not_timed_and_threads_are_put_back():
    clock, seen = Clock(), []

    def call():
        seen.append(torch.get_num_threads())
        clock.now += 9.0 if len(seen) <= 3 else 0.01

    before = torch.get_num_threads()
    assert max(timed(call, clock=clock, threads=before + 1).blocks) == pytest.approx(10)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_calls_take_turns_so_that_drift_leaves_their_ratio():
    """A machine that becomes three times slower changes both times and not their ratio."""
    clock = Clock()

    def drifting(seconds):
        def call():
            clock.now += seconds * (1 + clock.now)

        return call

    found = compared({"a": drifting(0.002), "b": drifting(0.001)}, clock=clock, seconds=1.0)
    ratio, low, high = found["a"].over(found["b"])
    assert ratio == pytest.approx(2, rel=0.02)
    assert low <= ratio <= high
    assert found["a"].blocks[-1] > 2.5 * found["a"].blocks[0]


def test_waits_for_the_device_inside_the_block():
    clock = Clock()
    found = timed(lambda: None, clock=clock, synchronise=clock.work(0.25))
    assert found.median * found.calls == pytest.approx(250)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="unknown clock 'sun'"):
        timed(lambda: None, clock="sun")
    with pytest.raises(ConfigError, match="threads 0"):
        timed(lambda: None, threads=0)
    with pytest.raises(ConfigError, match="did not move"):
        Timing((1.0,), 1).over(Timing((0.0,), 1))


def test_the_break_even_of_a_kernel_that_skips_zeros():
    """Time 3 (1 - s) + 0.25 of dense, so that it breaks even at s = 0.75, whatever levels are tried."""
    levels = [0.5, 0.6, 0.9, 0.95]
    time = [3 * (1 - s) + 0.25 for s in levels]
    assert crossing(levels, time) == pytest.approx(0.75)
    assert crossing([0.8, 0.9], [0.85, 0.55]) == 0.8, "below the lowest level tried"
    assert crossing([0.5, 0.9], [3.0, 1.0]) is None, "as fast is not faster"
    assert crossing([0.5, 0.7, 0.9], [0.9, 1.5, 0.5]) == pytest.approx(0.8), "from there on it stays faster"


def test_no_break_even_is_claimed_from_noise():
    levels = [0.5, 0.9]
    noisy = [Point(0.5, 1.02, 0.9, 1.1, 1.0), Point(0.9, 0.97, 0.88, 1.08, 1.0)]
    assert from_points(levels, noisy) == (None, (0.5, None))
    clear = [None, Point(0.9, 0.5, 0.4, 0.6, 1.0)]
    assert from_points(levels, clear) == (0.9, (0.9, 0.9)), "nothing to convert with profit at 50 %"

"""The window against a model that remembers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.userspace.replay import MAX_WINDOW_PACKETS, ReplayWindow


@given(
    st.sampled_from([64, 65, 1024, 4096]),
    st.lists(st.integers(-5000, 5000), max_size=200),
    st.integers(0, 1 << 34),
)
def test_admits_what_a_set_of_seen_numbers_admits(size: int, steps: list[int], start: int) -> None:
    window = ReplayWindow(size)
    seen: set[int] = set()
    number = start
    for step in steps:
        number = max(0, number + step // 3)
        expected = number > 0 and number not in seen and number > max(seen, default=0) - size
        assert window.admits(number) == expected
        if expected:
            window.mark(number)
            seen.add(number)
    assert window.highest == max(seen, default=0)


@given(
    st.sampled_from([64, 1024, 4096]),
    st.integers(1, 3 << 32),
    st.lists(st.integers(-4000, 100_000), max_size=100),
)
def test_the_high_half_is_inferred_over_every_wrap(size: int, start: int, steps: list[int]) -> None:
    window = ReplayWindow(size, highest=start)
    for step in steps:
        number = window.highest + step
        if number <= max(0, window.highest - size):
            continue
        assert window.infer(number & 0xFFFFFFFF) == number
        if window.admits(number):
            window.mark(number)


@pytest.mark.parametrize(
    ("highest", "low", "number"),
    [
        # RFC 4303 appendix A2.2, case A: the window lies in one subspace.
        (0x1_0000_1000, 0x0000_0FFF, 0x1_0000_0FFF),
        (0x1_0000_1000, 0x0000_0FC1, 0x1_0000_0FC1),  # the left edge of 64
        (0x1_0000_1000, 0x0000_0FC0, 0x2_0000_0FC0),  # one beyond it: taken for the next subspace
        # Case B: it spans two.
        (0x1_0000_0010, 0x0000_0011, 0x1_0000_0011),
        (0x1_0000_0010, 0xFFFF_FFFF, 0x0_FFFF_FFFF),
        (0x1_0000_0010, 0xFFFF_FFD1, 0x0_FFFF_FFD1),
        (0x1_0000_0010, 0xFFFF_FFD0, 0x1_FFFF_FFD0),
        # At the start there is no subspace before the first.
        (0, 1, 1),
        (5, 0xFFFF_FFFF, 0),
    ],
)
def test_rfc_4303_appendix_a(highest: int, low: int, number: int) -> None:
    assert ReplayWindow(64, highest=highest).infer(low) == number


def test_the_last_subspace_has_no_next() -> None:
    assert ReplayWindow(64, highest=0xFFFFFFFF_00001000).infer(1) == 0


def test_admitting_changes_nothing() -> None:
    window = ReplayWindow(64, highest=10, seen=1)
    assert window.admits(1 << 40)
    assert (window.highest, window.seen) == (10, 1)


def test_sizes_are_brought_into_their_bounds() -> None:
    assert ReplayWindow(0).size == 64
    assert ReplayWindow(1 << 20).size == MAX_WINDOW_PACKETS

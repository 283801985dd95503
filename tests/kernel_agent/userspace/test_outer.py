"""Runs of packets that one UDP_SEGMENT send can take, and what else of the outer side needs no network."""

from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.userspace.outer import MAX_RUN_BYTES, MAX_SEGMENTS, run_end


@given(st.lists(st.sampled_from([1, 60, 60, 60, 1400, 1400, 9000]).map(bytes), min_size=1, max_size=200))
def test_runs_cover_all_packets_and_keep_the_rules_of_udp_segment(packets: list[bytes]) -> None:
    start = 0
    while start < len(packets):
        stop = run_end(packets, start)
        lengths = [len(packet) for packet in packets[start:stop]]
        assert lengths
        assert all(length == lengths[0] for length in lengths[:-1])
        assert lengths[-1] <= lengths[0]
        assert len(lengths) <= MAX_SEGMENTS
        assert len(lengths) == 1 or sum(lengths) <= MAX_RUN_BYTES
        start = stop


def test_equal_packets_make_long_runs() -> None:
    assert run_end([bytes(1400)] * 64, 0) == 46
    assert run_end([bytes(100)] * 100, 10) == 74

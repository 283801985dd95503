"""Packets that wait for an SA."""

from kernel_agent.userspace.waiting import MAX_PACKETS, MAX_PER_RULE, MAX_WAIT_S, WaitingRoom


def test_packets_leave_in_order_and_only_those_of_their_rule() -> None:
    room = WaitingRoom(1)
    for number in range(4):
        assert room.enter(number % 2, bytes([number]), 0.0)
    assert room.leave(1) == [b"\1", b"\3"]
    assert room.leave(1) == []
    assert room.leave(0) == [b"\0", b"\2"]


def test_the_room_is_bounded_by_rule_and_in_all() -> None:
    room = WaitingRoom(1)
    assert sum(room.enter(1, b"x", 0.0) for _ in range(100)) == MAX_PER_RULE
    assert sum(room.enter(2 + number // 32, b"x", 0.0) for number in range(MAX_PACKETS)) == MAX_PACKETS - MAX_PER_RULE
    assert room.expire(MAX_WAIT_S - 0.1) == 0
    assert room.expire(MAX_WAIT_S) == MAX_PACKETS
    assert room.enter(1, b"x", 6.0)


def test_rules_that_are_gone_take_their_packets_with_them() -> None:
    room = WaitingRoom(1)
    room.enter(1, b"a", 0.0)
    room.enter(2, b"b", 0.0)
    assert room.keep_rules({2, 3}) == 1
    assert room.leave(2) == [b"b"]


def test_acquire_ids_differ_are_never_zero_and_come_once_a_second() -> None:
    room = WaitingRoom(0xFFFFFFFF)
    assert [room.acquire_id(1, 0.0), room.acquire_id(1, 0.9), room.acquire_id(2, 0.9)] == [0xFFFFFFFF, 0, 1]
    assert room.acquire_id(1, 1.0) == 2

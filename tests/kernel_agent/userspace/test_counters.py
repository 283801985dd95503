"""The counter memory outlives its process."""

import os
import random
from collections.abc import Iterator

import pytest

from kernel_agent.userspace.counters import SLOTS, CounterMemory, SlotRefused

TAG = bytes(range(16))


@pytest.fixture
def descriptor() -> Iterator[int]:
    number = os.memfd_create("counters")
    yield number
    os.close(number)


def test_a_new_slot_starts_at_one_and_zero(descriptor: int) -> None:
    slot = CounterMemory(descriptor).slot(5)
    slot.store_window(99, 99)
    slot.store_traffic(1, 2, 3.0)
    slot.start(TAG, 12.5)
    assert slot.next_sequence == 1
    assert (slot.window.highest, slot.window.seen) == (0, 0)
    assert (slot.traffic.packets, slot.traffic.bytes, slot.traffic.last_used) == (0, 0, 12.5)
    assert slot.installed_at == 12.5
    assert slot.belongs_to(TAG)
    assert not slot.belongs_to(bytes(16))


def test_another_process_goes_on_from_it(descriptor: int) -> None:
    slot = CounterMemory(descriptor).slot(5)
    slot.start(TAG, 1.0)
    slot.store_next_sequence((1 << 64) - 1)
    slot.store_window((1 << 64) - 1, (1 << 4096) - 1)
    slot.store_traffic(3, 4, 5.0)
    later = CounterMemory(descriptor).slot(5)
    assert later.next_sequence == (1 << 64) - 1
    assert (later.window.highest, later.window.seen) == ((1 << 64) - 1, (1 << 4096) - 1)
    assert (later.traffic.packets, later.traffic.bytes, later.traffic.last_used) == (3, 4, 5.0)


def test_slots_do_not_touch_each_other(descriptor: int) -> None:
    memory = CounterMemory(descriptor)
    chosen = random.Random(1)
    for index in (0, 1, 2, SLOTS - 2, SLOTS - 1):
        memory.slot(index).start(TAG, float(index))
    for index in (0, 1, 2, SLOTS - 2, SLOTS - 1):
        for _ in range(3):
            memory.slot(index).store_window(index + 7, chosen.getrandbits(4096) | 1)
        memory.slot(index).store_next_sequence(index + 8)
    for index in (0, 1, 2, SLOTS - 2, SLOTS - 1):
        slot = memory.slot(index)
        assert (slot.installed_at, slot.window.highest, slot.next_sequence) == (float(index), index + 7, index + 8)


def test_a_killed_process_leaves_its_numbers(descriptor: int) -> None:
    child = os.fork()
    if child == 0:
        slot = CounterMemory(descriptor).slot(3)
        slot.start(TAG, 1.0)
        slot.store_next_sequence(1234)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert CounterMemory(descriptor).slot(3).next_sequence == 1234


@pytest.mark.parametrize("index", [-1, SLOTS])
def test_there_is_no_such_slot(descriptor: int, index: int) -> None:
    with pytest.raises(SlotRefused):
        CounterMemory(descriptor).slot(index)

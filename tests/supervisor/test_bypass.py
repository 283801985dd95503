"""The bytes of per-socket policies and of the program that shares UDP 4500 (linux/xfrm.h, linux/filter.h)."""

import socket
import struct

import pytest

from ipc.types import Direction
from supervisor.bypass import bypass_policy
from supervisor.reuseport import DATA_PATH_INDEX, STEERING, WORKER_INDEX


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("direction", [Direction.IN, Direction.OUT])
def test_a_bypass_policy_has_the_layout_of_the_kernels_struct(family: int, direction: Direction) -> None:
    policy = bypass_policy(family, direction)
    assert len(policy) == 168
    assert struct.unpack_from("=H", policy, 40) == (family,)
    assert policy[:40] == bytes(40)
    # No limit of bytes, packets or time ends it.
    assert policy[56:88] == b"\xff" * 32
    priority, index, found_direction, action = struct.unpack_from("=IIBB", policy, 152)
    assert (priority, index, found_direction, action) == (0, 0, direction, 0)


def run_filter(payload: bytes) -> int:
    """What the classic BPF machine gives for `payload`: a load beyond its end gives 0."""
    accumulator, counter = 0, 0
    while True:
        instruction = STEERING[counter]
        counter += 1
        if instruction.code == 0x20:
            if instruction.k + 4 > len(payload):
                return 0
            (accumulator,) = struct.unpack_from("!I", payload, instruction.k)
        elif instruction.code == 0x15:
            counter += instruction.jump_true if accumulator == instruction.k else instruction.jump_false
        else:
            assert instruction.code == 0x06
            return instruction.k


def test_ike_goes_to_the_worker_and_esp_to_the_data_path() -> None:
    assert run_filter(bytes(4) + b"an IKE header") == WORKER_INDEX
    assert run_filter(b"\x00\x00\x01\x00 an ESP packet") == DATA_PATH_INDEX
    assert run_filter(b"\xff\xff\xff\xff") == DATA_PATH_INDEX


def test_a_nat_keepalive_goes_to_the_worker() -> None:
    assert run_filter(b"\xff") == WORKER_INDEX
    assert run_filter(b"") == WORKER_INDEX


def test_an_instruction_has_eight_bytes() -> None:
    assert [len(instruction.packed()) for instruction in STEERING] == [8, 8, 8, 8]

"""The bytes of per-socket policies and of the programs that share UDP 500 and 4500 (linux/xfrm.h, linux/filter.h)."""

import socket
import struct

import pytest

from ipc.types import Direction
from supervisor.bypass import bypass_policy
from supervisor.reuseport import (
    DATA_PATH_INDEX,
    STEERING,
    STRANGERS_APART,
    STRANGERS_INDEX,
    WORKER_INDEX,
    Instruction,
    steer,
)
from tests.lab.namespaces import gateways


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


def run_filter(payload: bytes, program: tuple[Instruction, ...] = STEERING) -> int:
    """What the classic BPF machine gives for `payload`: a load beyond its end gives 0."""
    accumulator, counter = 0, 0
    while True:
        instruction = program[counter]
        counter += 1
        if instruction.code in (0x20, 0x30):
            size = 4 if instruction.code == 0x20 else 1
            if instruction.k + size > len(payload):
                return 0
            accumulator = int.from_bytes(payload[instruction.k : instruction.k + size])
        elif instruction.code in (0x15, 0x45):
            met = accumulator == instruction.k if instruction.code == 0x15 else bool(accumulator & instruction.k)
            counter += instruction.jump_true if met else instruction.jump_false
        else:
            assert instruction.code == 0x06
            return instruction.k


def ike_header(*, exchange: int, response: bool = False, first: int = 33) -> bytes:
    return bytes(16) + bytes((first, 0x20, exchange, 0x20 if response else 0x08)) + bytes(8)


FIRST_MESSAGE = ike_header(exchange=34)
OTHERS = [
    ike_header(exchange=34, first=41),
    ike_header(exchange=34, response=True),
    *[ike_header(exchange=exchange) for exchange in (0, 35, 36, 37, 43, 255)],
    FIRST_MESSAGE[:16],
    b"",
]


def test_first_messages_without_a_cookie_have_a_socket_of_their_own() -> None:
    assert run_filter(FIRST_MESSAGE, STRANGERS_APART) == STRANGERS_INDEX
    for other in OTHERS:
        assert run_filter(other, STRANGERS_APART) == WORKER_INDEX


@pytest.mark.root
def test_the_kernel_steers_as_the_program_says() -> None:
    with gateways() as wire:

        def shared() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(("10.9.0.2", 500))
            made.settimeout(10.0)
            return made

        worker, strangers = wire.right.call(shared), wire.right.call(shared)
        steer(strangers, STRANGERS_APART)
        with worker, strangers, wire.left.udp_socket("10.9.0.1", 500) as sender:
            for datagram in (FIRST_MESSAGE, *OTHERS):
                sender.sendto(datagram, ("10.9.0.2", 500))
            assert [worker.recv(100) for _ in OTHERS] == OTHERS
            assert strangers.recv(100) == FIRST_MESSAGE


def test_ike_goes_to_the_worker_and_esp_to_the_data_path() -> None:
    assert run_filter(bytes(4) + b"an IKE header") == WORKER_INDEX
    assert run_filter(b"\x00\x00\x01\x00 an ESP packet") == DATA_PATH_INDEX
    assert run_filter(b"\xff\xff\xff\xff") == DATA_PATH_INDEX


def test_a_nat_keepalive_goes_to_the_worker() -> None:
    assert run_filter(b"\xff") == WORKER_INDEX
    assert run_filter(b"") == WORKER_INDEX


def test_an_instruction_has_eight_bytes() -> None:
    assert [len(instruction.packed()) for instruction in STEERING] == [8, 8, 8, 8]

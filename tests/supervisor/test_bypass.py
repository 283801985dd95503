"""The bytes of per-socket policies and of the programs that share UDP 500 and 4500 (linux/xfrm.h, linux/filter.h)."""

import socket
import struct

import pytest

from ipc.types import Direction
from supervisor.bypass import bypass_policy
from supervisor.reuseport import (
    DATA_PATH_INDEX,
    PORT_500,
    PORT_4500,
    PORT_4500_USERSPACE,
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


def run_filter(payload: bytes, program: tuple[Instruction, ...] = PORT_4500_USERSPACE) -> int:
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
    for program, marker in ((PORT_500, b""), (PORT_4500, bytes(4)), (PORT_4500_USERSPACE, bytes(4))):
        assert run_filter(marker + FIRST_MESSAGE, program) == STRANGERS_INDEX
        for other in OTHERS:
            assert run_filter(marker + other, program) == WORKER_INDEX


def test_esp_goes_where_it_is_taken() -> None:
    for packet in (b"\x00\x00\x01\x00 an ESP packet", b"\xff\xff\xff\xff", b"\0\1\0\0" + FIRST_MESSAGE):
        assert run_filter(packet, PORT_4500) == WORKER_INDEX
        assert run_filter(packet, PORT_4500_USERSPACE) == DATA_PATH_INDEX


@pytest.mark.root
def test_the_kernel_steers_as_the_program_says() -> None:
    with gateways() as wire:

        def shared() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(("10.9.0.2", 4500))
            made.settimeout(10.0)
            return made

        worker, strangers, data_path = (wire.right.call(shared) for _ in range(3))
        steer(data_path, PORT_4500_USERSPACE)
        esp = b"\0\0\1\0 an ESP packet"
        with worker, strangers, data_path, wire.left.udp_socket("10.9.0.1", 4500) as sender:
            for datagram in (esp, *(bytes(4) + one for one in (FIRST_MESSAGE, *OTHERS))):
                sender.sendto(datagram, ("10.9.0.2", 4500))
            assert [worker.recv(100) for _ in OTHERS] == [bytes(4) + one for one in OTHERS]
            assert strangers.recv(100) == bytes(4) + FIRST_MESSAGE
            assert data_path.recv(100) == esp


def test_a_nat_keepalive_goes_to_the_worker() -> None:
    assert run_filter(b"\xff") == WORKER_INDEX
    assert run_filter(b"") == WORKER_INDEX


def test_an_instruction_has_eight_bytes() -> None:
    assert {len(instruction.packed()) for instruction in PORT_4500} == {8}

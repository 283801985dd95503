"""The bytes of per-socket policies and of the programs that share UDP 500 and 4500 (linux/xfrm.h, linux/filter.h)."""

import operator
import socket
import struct

import pytest

from ipc.types import Direction
from supervisor.bypass import bypass_policy
from supervisor.reuseport import Instruction, data_path_index, ike_index, port_500, port_4500, steer
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


def run_filter(payload: bytes, program: tuple[Instruction, ...]) -> int:
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
        elif instruction.code in (0x04, 0x24, 0x94):
            operate = {0x04: operator.add, 0x24: operator.mul, 0x94: operator.mod}[instruction.code]
            accumulator = operate(accumulator, instruction.k)
        elif instruction.code == 0x05:
            counter += instruction.k
        elif instruction.code in (0x15, 0x45):
            met = accumulator == instruction.k if instruction.code == 0x15 else bool(accumulator & instruction.k)
            counter += instruction.jump_true if met else instruction.jump_false
        else:
            assert instruction.code in (0x06, 0x16)
            return instruction.k if instruction.code == 0x06 else accumulator


def ike_header(
    *, exchange: int, response: bool = False, initiator: bool = True, first: int = 33, spi_i: int = 0, spi_r: int = 0
) -> bytes:
    flags = (0x20 if response else 0) | (0x08 if initiator else 0)
    return bytes((0, 1, 2, 3, 4, 5, 6, spi_i, 0, 1, 2, 3, 4, 5, 6, spi_r, first, 0x20, exchange, flags)) + bytes(8)


INIT = 34
FIRST_MESSAGE = ike_header(exchange=INIT)
OTHERS = [
    ike_header(exchange=INIT, first=41),
    ike_header(exchange=INIT, response=True, initiator=False),
    *[ike_header(exchange=exchange) for exchange in (0, 35, 36, 37, 43, 255)],
    FIRST_MESSAGE[:16],
    b"",
]


def programs(workers: int) -> list[tuple[bytes, tuple[Instruction, ...]]]:
    """Each with what stands before an IKE message."""
    marker = bytes(4)
    behind_marker = [(marker, port_4500(workers, userspace=userspace)) for userspace in (False, True)]
    return [(b"", port_500(workers)), *behind_marker]


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_first_messages_without_a_cookie_have_a_socket_of_their_own(workers: int) -> None:
    for marker, program in programs(workers):
        assert run_filter(marker + FIRST_MESSAGE, program) == ike_index(0) + 1
        for other in OTHERS:
            assert run_filter(marker + other, program) == ike_index(0)


@pytest.mark.parametrize("workers", [2, 3, 16])
@pytest.mark.parametrize("ours", [0, 1, 2, 17, 255])
def test_our_spi_says_which_worker_a_message_is_for(workers: int, ours: int) -> None:
    mine = ike_index(ours % workers)
    for marker, program in programs(workers):
        for exchange in (35, 36, 37, 43):
            for response in (False, True):
                from_initiator = ike_header(exchange=exchange, response=response, spi_i=99, spi_r=ours)
                from_responder = ike_header(exchange=exchange, response=response, initiator=False, spi_i=ours, spi_r=99)
                assert run_filter(marker + from_initiator, program) == mine
                assert run_filter(marker + from_responder, program) == mine
        answer = ike_header(exchange=INIT, response=True, initiator=False, spi_i=ours, spi_r=99)
        assert run_filter(marker + answer, program) == mine


@pytest.mark.parametrize("workers", [2, 3, 16])
@pytest.mark.parametrize("theirs", [0, 1, 2, 17, 255])
def test_a_first_message_and_its_repetition_with_a_cookie_reach_one_worker(workers: int, theirs: int) -> None:
    for marker, program in programs(workers):
        assert run_filter(marker + ike_header(exchange=INIT, spi_i=theirs), program) == ike_index(theirs % workers) + 1
        with_cookie = ike_header(exchange=INIT, first=41, spi_i=theirs)
        assert run_filter(marker + with_cookie, program) == ike_index(theirs % workers)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_esp_goes_where_it_is_taken(workers: int) -> None:
    for packet in (b"\x00\x00\x01\x00 an ESP packet", b"\xff\xff\xff\xff", b"\0\1\0\0" + FIRST_MESSAGE):
        assert run_filter(packet, port_4500(workers, userspace=False)) == ike_index(0)
        assert run_filter(packet, port_4500(workers, userspace=True)) == data_path_index(workers)


@pytest.mark.root
@pytest.mark.parametrize("workers", [1, 3])
def test_the_kernel_steers_as_the_program_says(workers: int) -> None:
    with gateways() as wire:

        def shared() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(("10.9.0.2", 4500))
            made.settimeout(10.0)
            return made

        program = port_4500(workers, userspace=True)
        group = [wire.right.call(shared) for _ in range(data_path_index(workers) + 1)]
        steer(group[-1], program)
        messages = [
            ike_header(exchange=exchange, response=response, initiator=initiator, first=first, spi_i=spi_i, spi_r=spi_r)
            for exchange, first in ((INIT, 33), (INIT, 41), (35, 46))
            for response, initiator in ((False, True), (True, False))
            for spi_i, spi_r in ((0, 2), (1, 0), (250, 251))
        ]
        datagrams = [b"\0\0\1\0 an ESP packet", *(bytes(4) + one for one in (*messages, *OTHERS))]
        with wire.left.udp_socket("10.9.0.1", 4500) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, ("10.9.0.2", 4500))
            for datagram in datagrams:
                assert group[run_filter(datagram, program)].recv(100) == datagram
        for one in group:
            one.close()

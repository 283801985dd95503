"""Several sockets on one port, and which datagram goes to which: SO_REUSEPORT groups with a classic BPF program.

First messages without a cookie (RFC 7296 section 2.6) have a socket of their own on UDP 500 and 4500, both of them the
worker's: a flood fills its buffer, and what others send still finds room in theirs.

UDP 4500 may be for two processes, IKE to the worker, ESP to the data path, without a copy between them: in
UDP-encapsulated traffic IKE starts with a non-ESP marker of four zero bytes, ESP with its SPI (RFC 3948 section 2.2).

A program picks a socket by its place in the group. A packet too short for it (a NAT keepalive is one byte) makes it end
with 0: the worker's first socket.
"""

import ctypes
import socket
import struct

from ipc.value import value

SO_ATTACH_REUSEPORT_CBPF = 51
WORKER_INDEX = 0
STRANGERS_INDEX = 1
DATA_PATH_INDEX = 2

_BPF_LD_W_ABS = 0x20
_BPF_LD_B_ABS = 0x30
_BPF_JEQ_K = 0x15
_BPF_JSET_K = 0x45
_BPF_RET_K = 0x06


@value
class Instruction:
    """One `struct sock_filter`."""

    code: int
    jump_true: int = 0
    jump_false: int = 0
    k: int = 0

    def packed(self) -> bytes:
        """Its eight bytes."""
        return struct.pack("=HBBI", self.code, self.jump_true, self.jump_false, self.k)


def _strangers_apart(start: int) -> tuple[Instruction, ...]:
    """For an IKE message that begins at `start`.

    RFC 7296 section 3.1: the next payload stands at 16, the exchange at 18, the flags at 19. A cookie comes first, in a
    Notify payload.
    """
    return (
        Instruction(code=_BPF_LD_B_ABS, k=start + 18),
        Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=5, k=34),  # IKE_SA_INIT
        Instruction(code=_BPF_LD_B_ABS, k=start + 19),
        Instruction(code=_BPF_JSET_K, jump_true=3, jump_false=0, k=0x20),  # a response
        Instruction(code=_BPF_LD_B_ABS, k=start + 16),
        Instruction(code=_BPF_JEQ_K, jump_true=1, jump_false=0, k=41),  # Notify
        Instruction(code=_BPF_RET_K, k=STRANGERS_INDEX),
        Instruction(code=_BPF_RET_K, k=WORKER_INDEX),
    )


def _behind_marker(esp_index: int) -> tuple[Instruction, ...]:
    ike = _strangers_apart(4)
    return (
        Instruction(code=_BPF_LD_W_ABS, k=0),
        Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=len(ike), k=0),
        *ike,
        Instruction(code=_BPF_RET_K, k=esp_index),
    )


PORT_500 = _strangers_apart(0)
PORT_4500 = _behind_marker(WORKER_INDEX)
"""ESP goes to the worker's socket, where the kernel takes it."""
PORT_4500_USERSPACE = _behind_marker(DATA_PATH_INDEX)


def steer(sock: socket.socket, instructions: tuple[Instruction, ...]) -> None:
    """Puts a program on the SO_REUSEPORT group of `sock`."""
    program = b"".join(instruction.packed() for instruction in instructions)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding to a pointer, the pointer.
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(instructions), ctypes.addressof(buffer))
    )

"""Several sockets on one port, and which datagram goes to which: SO_REUSEPORT groups with a classic BPF program.

UDP 4500 is for two processes, IKE to the worker, ESP to the data path, without a copy between them: in UDP-encapsulated
traffic IKE starts with a non-ESP marker of four zero bytes, ESP with its SPI (RFC 3948 section 2.2).

UDP 500 is the worker's alone, but first messages without a cookie (RFC 7296 section 2.6) have a socket of their own:
a flood of them fills its buffer, and what others send still finds room in theirs.

A program picks a socket by its place in the group. A packet too short for it (a NAT keepalive is one byte) makes it end
with 0: the worker's first socket.
"""

import ctypes
import socket
import struct
from dataclasses import dataclass

SO_ATTACH_REUSEPORT_CBPF = 51
WORKER_INDEX = 0
DATA_PATH_INDEX = 1
STRANGERS_INDEX = 1

_BPF_LD_W_ABS = 0x20
_BPF_LD_B_ABS = 0x30
_BPF_JEQ_K = 0x15
_BPF_JSET_K = 0x45
_BPF_RET_K = 0x06


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One `struct sock_filter`."""

    code: int
    jump_true: int = 0
    jump_false: int = 0
    k: int = 0

    def packed(self) -> bytes:
        """Its eight bytes."""
        return struct.pack("=HBBI", self.code, self.jump_true, self.jump_false, self.k)


STEERING = (
    Instruction(code=_BPF_LD_W_ABS, k=0),
    Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=1, k=0),
    Instruction(code=_BPF_RET_K, k=WORKER_INDEX),
    Instruction(code=_BPF_RET_K, k=DATA_PATH_INDEX),
)


# RFC 7296 section 3.1: next payload at 16, exchange at 18, flags at 19; a cookie comes first, in a Notify payload.
STRANGERS_APART = (
    Instruction(code=_BPF_LD_B_ABS, k=18),
    Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=5, k=34),  # IKE_SA_INIT
    Instruction(code=_BPF_LD_B_ABS, k=19),
    Instruction(code=_BPF_JSET_K, jump_true=3, jump_false=0, k=0x20),  # a response
    Instruction(code=_BPF_LD_B_ABS, k=16),
    Instruction(code=_BPF_JEQ_K, jump_true=1, jump_false=0, k=41),  # Notify
    Instruction(code=_BPF_RET_K, k=STRANGERS_INDEX),
    Instruction(code=_BPF_RET_K, k=WORKER_INDEX),
)


def steer(sock: socket.socket, instructions: tuple[Instruction, ...]) -> None:
    """Puts a program on the SO_REUSEPORT group of `sock`."""
    program = b"".join(instruction.packed() for instruction in instructions)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding to a pointer, the pointer.
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(instructions), ctypes.addressof(buffer))
    )

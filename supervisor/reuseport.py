"""UDP 4500 for two processes: IKE to the worker, ESP to the data path, without a copy between them.

Both sockets are in one SO_REUSEPORT group, and a classic BPF program picks the socket by its place in the group: in
UDP-encapsulated traffic, IKE starts with a non-ESP marker of four zero bytes, ESP with its SPI (RFC 3948 section 2.2).
A packet too short to tell (a NAT keepalive is one byte) makes the program end with 0: the worker's.
"""

import ctypes
import socket
import struct
from dataclasses import dataclass

SO_ATTACH_REUSEPORT_CBPF = 51
WORKER_INDEX = 0
DATA_PATH_INDEX = 1

_BPF_LD_W_ABS = 0x20
_BPF_JEQ_K = 0x15
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


def steer(sock: socket.socket) -> None:
    """Puts the program on the SO_REUSEPORT group of `sock`."""
    program = b"".join(instruction.packed() for instruction in STEERING)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding to a pointer, the pointer.
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(STEERING), ctypes.addressof(buffer))
    )

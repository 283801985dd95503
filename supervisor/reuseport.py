"""Several sockets on one port, and which datagram goes to which: SO_REUSEPORT groups with a classic BPF program.

Each worker has sockets of its own on UDP 500 and 4500, and gets what is about its IKE SAs: a byte of the SPI that it
has chosen says whose one is. First messages without a cookie (RFC 7296 section 2.6) go to yet another socket of a
worker: a flood fills its buffer, and what others send still finds room in theirs.

UDP 4500 may be for the data path too, IKE to a worker, ESP to the data path, without a copy between them: in
UDP-encapsulated traffic IKE starts with a non-ESP marker of four zero bytes, ESP with its SPI (RFC 3948 section 2.2).

A program picks a socket by its place in the group. A packet too short for it (a NAT keepalive is one byte) makes it end
with 0: the first worker's first socket.
"""

import ctypes
import socket
import struct

from ipc.roles import SPI_STEER_BYTE
from ipc.value import value

SO_ATTACH_REUSEPORT_CBPF = 51
_BPF_LD_W_ABS = 0x20
_BPF_LD_B_ABS = 0x30
_BPF_JEQ_K = 0x15
_BPF_JSET_K = 0x45
_BPF_JA = 0x05
_BPF_ADD_K = 0x04
_BPF_MUL_K = 0x24
_BPF_MOD_K = 0x94
_BPF_RET_K = 0x06
_BPF_RET_A = 0x16


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


def ike_index(worker: int) -> int:
    """The place of the worker's socket in a group; the one for strangers is next to it."""
    return 2 * worker


def data_path_index(workers: int) -> int:
    """The place of the data path's, behind those of all workers."""
    return 2 * workers


def _ike(start: int, workers: int) -> tuple[Instruction, ...]:
    """For an IKE message that begins at `start`.

    RFC 7296 section 3.1: the SPIs stand at 0 and 8, the next payload at 16, the exchange at 18, the flags at 19. The
    flag of the original initiator says that the responder's SPI is ours. A cookie comes first, in a Notify payload. A
    first message has no SPI of ours; the initiator's stays the same when it repeats its message with a cookie or
    another key exchange, so that the same worker gets it.
    """
    spi_i, spi_r = start + SPI_STEER_BYTE, start + 8 + SPI_STEER_BYTE
    index = (Instruction(code=_BPF_MOD_K, k=workers), Instruction(code=_BPF_MUL_K, k=2))
    stranger = (
        Instruction(code=_BPF_LD_B_ABS, k=spi_i),
        *index,
        Instruction(code=_BPF_ADD_K, k=1),
        Instruction(code=_BPF_RET_A),
    )
    known = 5 + len(stranger)
    """The place of the instruction from which on a message has an SPI of ours."""
    return (
        Instruction(code=_BPF_LD_B_ABS, k=start + 18),
        Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=known - 1, k=34),  # IKE_SA_INIT
        Instruction(code=_BPF_LD_B_ABS, k=start + 19),
        Instruction(code=_BPF_JSET_K, jump_true=known - 3, jump_false=0, k=0x20),  # a response
        Instruction(code=_BPF_LD_B_ABS, k=start + 16),
        Instruction(code=_BPF_JEQ_K, jump_true=known - 3, jump_false=0, k=41),  # Notify
        *stranger,
        Instruction(code=_BPF_LD_B_ABS, k=start + 19),
        Instruction(code=_BPF_JSET_K, jump_true=2, jump_false=0, k=0x08),  # from the original initiator
        Instruction(code=_BPF_LD_B_ABS, k=spi_i),
        Instruction(code=_BPF_JA, k=1),
        Instruction(code=_BPF_LD_B_ABS, k=spi_r),
        *index,
        Instruction(code=_BPF_RET_A),
    )


def port_500(workers: int) -> tuple[Instruction, ...]:
    """The program for UDP 500."""
    return _ike(0, workers)


def port_4500(workers: int, *, userspace: bool) -> tuple[Instruction, ...]:
    """The program for UDP 4500. Without a data path in user space, ESP goes to a worker, where the kernel takes it."""
    ike = _ike(4, workers)
    return (
        Instruction(code=_BPF_LD_W_ABS, k=0),
        Instruction(code=_BPF_JEQ_K, jump_true=0, jump_false=len(ike), k=0),
        *ike,
        Instruction(code=_BPF_RET_K, k=data_path_index(workers) if userspace else ike_index(0)),
    )


def steer(sock: socket.socket, instructions: tuple[Instruction, ...]) -> None:
    """Puts a program on the SO_REUSEPORT group of `sock`."""
    program = b"".join(instruction.packed() for instruction in instructions)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding to a pointer, the pointer.
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(instructions), ctypes.addressof(buffer))
    )

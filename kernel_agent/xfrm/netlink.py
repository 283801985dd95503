"""Netlink sockets: one that asks and waits for every answer, and one that only listens.

Requests go many to a send, and each is acknowledged: a refusal comes back as NetlinkError with the kernel's own text
(extended ACK). All waits are bounded. Requests and events never share a socket, so an answer can't hide an event.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from kernel_agent.xfrm import constants as c
from kernel_agent.xfrm.structs import NLMSG_HEADER, unpack_attributes

MESSAGES_PER_SEND = 200
ANSWER_TIMEOUT_S = 10.0
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
RECEIVE_BYTES = 65536
"""The kernel fills at most 32 KiB at a time."""
_SO_RCVBUFFORCE = 33
_DUMP_ATTEMPTS = 5

T = TypeVar("T")


class NetlinkError(OSError):
    """The kernel refused a request; `strerror` holds its extended text too, if it gave one."""


class Request(NamedTuple):
    """One message to the kernel, without its header. `flags` beyond NLM_F_REQUEST and NLM_F_ACK."""

    kind: int
    body: bytes
    flags: int = 0
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """One message from the kernel, without its header."""

    kind: int
    body: bytes


class RequestSocket:
    """Asks the kernel, and returns when it has answered.

    `writes` counts the requests that may change something (all but dumps and single questions).
    """

    def __init__(self, protocol: int, working: Callable[[], None] = lambda: None) -> None:
        """`working` is called between the parts of what takes long."""
        self._working = working
        self.writes = 0
        self._sequence = 0
        self._socket = _open(protocol, groups=0)
        self._socket.settimeout(ANSWER_TIMEOUT_S)

    def transact(self, requests: Sequence[Request]) -> list[NetlinkError | None]:
        """Sends `requests` in order and returns what the kernel said to each: None where it agreed.

        A request after a refused one is carried out all the same. OSError if the kernel does not answer.
        """
        results: list[NetlinkError | None] = []
        for start in range(0, len(requests), MESSAGES_PER_SEND):
            results += self._transact_batch(requests[start : start + MESSAGES_PER_SEND])
            self._working()
        return results

    def execute(self, requests: Sequence[Request]) -> None:
        """As `transact`; raises the first NetlinkError."""
        for error in self.transact(requests):
            if error is not None:
                raise error

    def dump(self, kind: int, body: bytes) -> list[Answer]:
        """Everything the kernel lists for this question, read again where it changed meanwhile."""
        return self._dump(kind, body, Answer)

    def dump_bodies(self, kind: int, body: bytes) -> list[bytes]:
        """As `dump`, for a question whose answers are all of one kind."""
        return self._dump(kind, body, lambda _kind, content: content)

    def _dump(self, kind: int, body: bytes, make: Callable[[int, bytes], T]) -> list[T]:
        for _ in range(_DUMP_ATTEMPTS):
            answers = self._dump_once(kind, body, make)
            if answers is not None:
                return answers
        raise NetlinkError(errno.EINTR, "the kernel's tables change faster than they can be read")

    def ask(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        """The one answer to a question; NetlinkError if it is a refusal."""
        self._send([Request(kind, body, flags, acknowledged=False)])
        for header in self._receive():
            if header.sequence == self._sequence:
                if header.kind == c.NLMSG_ERROR:
                    raise _error_of(header) or NetlinkError(errno.EPROTO, "acknowledged without an answer")
                return header.body
        raise NetlinkError(errno.ETIMEDOUT, "the kernel did not answer")

    def fileno(self) -> int:
        """The descriptor to wait on, for what the kernel says unasked."""
        return self._socket.fileno()

    def received(self) -> list[Answer]:
        """What the kernel has said unasked, without waiting; empty if nothing."""
        try:
            data = self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        return [Answer(header.kind, header.body) for header in _split(data)]

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _transact_batch(self, requests: Sequence[Request]) -> list[NetlinkError | None]:
        self.writes += len(requests)
        if all(request.acknowledged for request in requests):
            # A refusal is always said. The kernel's word on the last request comes after those on all before it.
            first = self._send(requests, only_last=True)
            awaited = {first + len(requests) - 1}
        else:
            first = self._send(requests)
            awaited = {first + offset for offset, request in enumerate(requests) if request.acknowledged}
        results: list[NetlinkError | None] = [None] * len(requests)
        while awaited:
            for header in self._receive():
                if header.kind == c.NLMSG_ERROR and first <= header.sequence < first + len(requests):
                    results[header.sequence - first] = _error_of(header)
                    awaited.discard(header.sequence)
        return results

    def _send(self, requests: Sequence[Request], *, only_last: bool = False) -> int:
        """Sends all in one datagram; returns the sequence number of the first. Asks for acknowledgements."""
        first = self._sequence + 1
        parts: list[bytes] = []
        pack = NLMSG_HEADER.pack
        last = len(requests) - 1
        for number, (kind, body, flags, acknowledged) in enumerate(requests):
            wants_answer = number == last if only_last else acknowledged
            flags |= c.NLM_F_REQUEST | c.NLM_F_ACK if wants_answer else c.NLM_F_REQUEST
            parts.append(pack(16 + len(body), kind, flags, first + number, 0))
            parts.append(body)
            if len(body) % 4:
                parts.append(bytes(-len(body) % 4))
        self._sequence += len(requests)
        self._socket.send(b"".join(parts))
        return first

    def _dump_once(self, kind: int, body: bytes, make: Callable[[int, bytes], T]) -> list[T] | None:
        self._send([Request(kind, body, c.NLM_F_DUMP, acknowledged=False)])
        answers: list[T] = []
        whole = True
        unpack, wanted = NLMSG_HEADER.unpack_from, self._sequence
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            self._working()
            offset = 0
            # As `_split`, without an object in between: there may be a hundred thousand.
            while offset + 16 <= len(data):
                length, found, flags, sequence, _ = unpack(data, offset)
                if length < 16 or offset + length > len(data):
                    raise NetlinkError(errno.EPROTO, f"a message of {length} bytes in {len(data) - offset}")
                if sequence == wanted:
                    whole = whole and not flags & c.NLM_F_DUMP_INTR
                    if found == c.NLMSG_DONE:
                        return answers if whole else None
                    content = data[offset + 16 : offset + length]
                    if found == c.NLMSG_ERROR:
                        error = _error_of(_Received(found, flags, sequence, content))
                        raise error or NetlinkError(errno.EPROTO, "a dump was acknowledged, not given")
                    answers.append(make(found, content))
                offset += (length + 3) & ~3

    def _receive(self) -> Iterator["_Received"]:
        return _split(self._socket.recv(RECEIVE_BYTES))


class MonitorSocket:
    """Listens to multicast groups of one netlink protocol, without ever waiting."""

    def __init__(self, protocol: int, groups: Iterable[int]) -> None:
        self._socket = _open(protocol, groups=sum(1 << (group - 1) for group in groups))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def receive(self) -> list[Answer]:
        """What has come; empty if nothing has. OSError(ENOBUFS) once after the kernel had to drop events."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        return [Answer(header.kind, header.body) for header in _split(data)]

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class _Received:
    kind: int
    flags: int
    sequence: int
    body: bytes


def _open(protocol: int, groups: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        opened.setsockopt(c.SOL_NETLINK, c.NETLINK_CAP_ACK, 1)
        opened.setsockopt(c.SOL_NETLINK, c.NETLINK_EXT_ACK, 1)
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


def _split(data: bytes) -> Iterator[_Received]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = NLMSG_HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            raise NetlinkError(errno.EPROTO, f"a message of {length} bytes in {len(data) - offset}")
        yield _Received(kind, flags, sequence, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _error_of(received: _Received) -> NetlinkError | None:
    """struct nlmsgerr { int error; struct nlmsghdr msg; } and, after the request or its header, the text."""
    number = -int.from_bytes(received.body[:4], sys.byteorder, signed=True)
    if number == 0:
        return None
    text = os.strerror(number)
    if received.flags & c.NLM_F_ACK_TLVS:
        request_bytes = int.from_bytes(received.body[4:8], sys.byteorder)
        offset = 20 if received.flags & c.NLM_F_CAPPED else 4 + ((request_bytes + 3) & ~3)
        for attribute in unpack_attributes(received.body, offset):
            if attribute.kind == c.NLMSGERR_ATTR_MSG:
                text += ": " + attribute.value.rstrip(b"\0").decode("ascii", "replace")
    return NetlinkError(number, text)

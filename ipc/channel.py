"""Links in use: ZeroMQ sockets that carry typed messages between processes whose uid the kernel vouches for.

The binder of a link is a ROUTER on a listener that the supervisor made, the connector a DEALER that reconnects by
itself. At each new connection, those to a binder that was started again included, the connector sends a probe (an empty
frame), and the binder calls `on_connected`: the place to send or to ask for what a fresh peer lacks. (ZeroMQ's own
ZMQ_PROBE_ROUTER speaks at the first connection only.) Every socket has a ZAP domain, the link's
name; `Gatekeeper` answers for it, and lets in only the uid that the link expects.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from ipc import codec
from ipc.errors import MessageRefused, PeerGone
from ipc.links import SUPERVISOR_LOADER, Link, socket_path
from ipc.loop import Loop
from ipc.roles import Role, process_name, uid_of

log = logging.getLogger(__name__)

MESSAGES_PER_TURN = 128
"""How many messages one link may have handled before the others have their turn."""
HIGH_WATER_MESSAGES = 20_000
MAX_FRAME_BYTES = 24 * 1024 * 1024
RECONNECT_MS = 10
RECONNECT_MAX_MS = 250
PROBE_AGAIN_S = 0.1

Handler = Callable[[Any, bytes], None]
"""Called with the message and the routing id of its sender."""
Admission = Callable[[str, int, int], bool]
"""Called with link name, uid and pid of a new connection, after the uid was found right."""


class Gatekeeper:
    """Answers ZeroMQ's authentication requests (ZAP, RFC 27) for all links of this process.

    For an `ipc://` connection the address in the request ends in ":uid:gid:pid", as SO_PEERCRED tells. On the
    binder's side that is who connected; on the connector's side it is who called listen(): the supervisor, root.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", loop: Loop) -> None:
        self.refused = 0
        self._uids: dict[str, frozenset[int]] = {}
        self._admission: Admission | None = None
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind("inproc://zeromq.zap.01")
        loop.add_reader(self._socket, self._on_request)
        self._loop = loop

    def expect(self, link: Link, uids: frozenset[int]) -> None:
        """Lets only these uids be at the other end of `link`."""
        self._uids[link.name] = uids

    def ask(self, admission: Admission) -> None:
        """Asks `admission` too, for each connection with a right uid."""
        self._admission = admission

    def close(self) -> None:
        """Answers no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _on_request(self) -> None:
        request = self._socket.recv_multipart()
        version, request_id, domain, address = (
            request[0],
            request[1],
            request[2].decode(),
            request[3].decode(),
        )
        allowed = self._allowed(domain, address)
        if not allowed:
            self.refused += 1
            log.warning("link %s: a connection from %s was refused", domain, address or "an unknown process")
        code, text = (b"200", b"") if allowed else (b"400", b"not the process this link is for")
        self._socket.send_multipart([version, request_id, code, text, address.encode(), b""])

    def _allowed(self, domain: str, address: str) -> bool:
        try:
            uid, _gid, pid = (int(part) for part in address.rsplit(":", 3)[1:])
        except ValueError:
            return False
        if uid not in self._uids.get(domain, frozenset()):
            return False
        return self._admission is None or self._admission(domain, uid, pid)


class Channel:
    """One link, from the point of view of one role.

    `handlers` must have exactly the message types that the link's access list lets this role receive: the table of
    handlers is the access list. A refused message is counted, told to `on_refused`, and nothing more. `index` says
    which of its role's processes this one is: it is known by its name (`process_name`) to the binder.
    """

    def __init__(
        self,
        *,
        context: "zmq.Context[zmq.Socket[bytes]]",
        loop: Loop,
        gatekeeper: Gatekeeper,
        link: Link,
        role: Role,
        run_directory: str,
        handlers: Mapping[type, Handler],
        listener: int | None = None,
        on_connected: Callable[[bytes], None] | None = None,
        on_refused: Callable[[Link, str, bytes], None] | None = None,
        index: int = 0,
    ) -> None:
        if set(handlers) != link.receivable(role):
            wrong = set(handlers) ^ link.receivable(role)
            raise TypeError(
                f"{role} on {link.name}: handlers and access list differ in {sorted(t.__name__ for t in wrong)}"
            )
        self.link = link
        self.refused = 0
        self._role = role
        self._sendable = link.sendable(role)
        self._handlers = dict(handlers)
        self._on_connected = on_connected
        self._on_refused = on_refused
        self._loop = loop
        self._binds = role is link.binder
        self._default_peer = process_name(link.connector).encode()
        self._own_id = process_name(role, index).encode()
        self._socket = context.socket(zmq.ROUTER if self._binds else zmq.DEALER)
        self._configure()
        endpoint = "ipc://" + socket_path(run_directory, link)
        if self._binds:
            gatekeeper.expect(link, frozenset({uid_of(link.connector)}))
            if listener is not None:
                self._socket.setsockopt(zmq.USE_FD, listener)
            self._socket.bind(endpoint)
        else:
            gatekeeper.expect(link, frozenset({0}))
            self._connections = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            loop.add_reader(self._connections, self._on_connection)
            self._socket.connect(endpoint)
        loop.add_reader(self._socket, self._on_readable)

    def _configure(self) -> None:
        socket = self._socket
        socket.setsockopt_string(zmq.ZAP_DOMAIN, self.link.name)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MESSAGES)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MESSAGES)
        limit = codec.MAX_MESSAGE_BYTES if self.link is SUPERVISOR_LOADER else MAX_FRAME_BYTES
        socket.setsockopt(zmq.MAXMSGSIZE, limit)
        socket.setsockopt(zmq.LINGER, 500)
        if self._binds:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            return
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if self._role is not Role.IPSECCTL:
            socket.setsockopt(zmq.ROUTING_ID, self._own_id)

    def send(self, message: object, peer: bytes | None = None) -> None:
        """Sends `message`; `peer` is a routing id, and needed only where a link has several connectors.

        PeerGone if nobody is connected (binder's side) or the peer has taken nothing for too long. TypeError for a
        message that is not this role's to send here.
        """
        if type(message) not in self._sendable:
            raise TypeError(f"{self._role} may not send {type(message).__name__} on {self.link.name}")
        data = codec.encode(message)
        try:
            if self._binds:
                self._socket.send_multipart([peer or self._default_peer, data], zmq.DONTWAIT)
            else:
                self._socket.send(data, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise PeerGone(f"{self.link.name}: {zmq.strerror(error.errno)}") from error
            raise

    def try_send(self, message: object, peer: bytes | None = None) -> bool:
        """As `send`, but False where nobody is there: for messages that a fresh peer gets anyway, or asks for."""
        try:
            self.send(message, peer)
        except PeerGone as error:
            log.debug("%s not sent: %s", type(message).__name__, error)
            return False
        return True

    def close(self) -> None:
        """Sends what is queued (at most half a second) and speaks no more."""
        self._loop.remove_reader(self._socket)
        if not self._binds:
            self._loop.remove_reader(self._connections)
            self._socket.disable_monitor()
            self._connections.close(0)
        self._socket.close()

    def _on_connection(self) -> None:
        """The binder is there, or there again."""
        while self._connections.poll(0):
            self._connections.recv_multipart()
        self._probe()

    def _probe(self) -> None:
        if self._socket.closed:
            return
        try:
            self._socket.send(b"", zmq.DONTWAIT)
        except zmq.Again:
            # The queue is full of messages that go first.
            self._loop.call_later(PROBE_AGAIN_S, self._probe)

    def _on_readable(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            peer = frames.pop(0) if self._binds and frames else b""
            if len(frames) != 1:
                self._refuse(f"{len(frames)} frames, not one", peer)
            elif self._binds and not frames[0]:
                if self._on_connected is not None:
                    self._on_connected(peer)
            else:
                self._receive(frames[0], peer)

    def _receive(self, data: bytes, peer: bytes) -> None:
        try:
            message = codec.decode(data)
        except MessageRefused as error:
            self._refuse(str(error), peer)
            return
        handler = self._handlers.get(type(message))
        if handler is None:
            self._refuse(f"{type(message).__name__} is not for this link", peer)
            return
        handler(message, peer)

    def _refuse(self, reason: str, peer: bytes) -> None:
        self.refused += 1
        log.warning("link %s: a message was refused: %s", self.link.name, reason)
        if self._on_refused is not None:
            self._on_refused(self.link, reason, peer)

"""The supervisor's ends of its links, and the listeners of all others."""

import os
from collections.abc import Callable, Mapping

import zmq

from ipc.channel import Admission, Channel, Gatekeeper, Handler
from ipc.links import LINKS, Link
from ipc.loop import Loop
from ipc.process import LISTENER_PREFIX
from ipc.roles import Role
from supervisor.sockets import Descriptors, open_listener, own_link_socket


class Channels:
    """Opened one by one; nobody but the present child of a role, or root on the control link, is let in."""

    def __init__(self, loop: Loop, run_directory: str, admission: Admission) -> None:
        self._loop = loop
        self._run_directory = run_directory
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, loop)
        self._gatekeeper.ask(admission)
        self._open: dict[Role, Channel] = {}

    def open(
        self, link: Link, handlers: Mapping[type, Handler], on_refused: Callable[[Link, str, bytes], None]
    ) -> None:
        """Opens a link of the supervisor's with the handlers that its access list asks for."""
        umask = os.umask(0o077)
        try:
            self._open[link.connector] = Channel(
                context=self._context,
                loop=self._loop,
                gatekeeper=self._gatekeeper,
                link=link,
                role=Role.SUPERVISOR,
                run_directory=self._run_directory,
                handlers=handlers,
                on_refused=on_refused,
            )
        finally:
            os.umask(umask)
        own_link_socket(self._run_directory, link)

    def send(self, role: Role, message: object, peer: bytes | None = None) -> bool:
        """Sends to `role`; False if it is not connected."""
        channel = self._open.get(role)
        return channel is not None and channel.try_send(message, peer)

    @property
    def refused_messages(self) -> int:
        """Messages refused and connections not let in by the supervisor itself."""
        return self._gatekeeper.refused + sum(channel.refused for channel in self._open.values())

    def close(self) -> None:
        """Sends what is queued and closes all."""
        for channel in self._open.values():
            channel.close()
        self._open.clear()
        self._gatekeeper.close()
        self._context.term()


def open_listeners(run_directory: str, descriptors: Descriptors) -> None:
    """The listeners of the links between children: kept for life, so a binder that died is connected to again."""
    umask = os.umask(0o077)
    try:
        for link in LINKS:
            if link.binder is not Role.SUPERVISOR:
                descriptors.add_socket(LISTENER_PREFIX + link.name, open_listener(run_directory, link))
    finally:
        os.umask(umask)

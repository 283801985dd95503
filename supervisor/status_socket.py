"""The supervisor's end of the status socket."""

import contextlib
import logging
import os
from collections.abc import Callable

from ipc import status_socket
from ipc.loop import Loop

log = logging.getLogger(__name__)


class StatusSocket:
    """Gives `status()` to everybody who connects; one that is left over from a supervisor that died is replaced."""

    def __init__(self, loop: Loop, run_directory: str, status: Callable[[], str]) -> None:
        self._loop = loop
        self._path = status_socket.status_socket_path(run_directory)
        self._status = status
        self._remove()
        self._listener = status_socket.listen(run_directory)
        loop.add_reader(self._listener.fileno(), self._on_readable)

    def close(self) -> None:
        """Answers no more, and removes the file."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._remove()

    def _on_readable(self) -> None:
        reader = status_socket.accept(self._listener)
        if reader is None:
            return
        try:
            status_socket.say(reader, self._status())
        except OSError as error:
            log.debug("a reader of the status did not wait: %s", error)

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

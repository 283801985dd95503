"""The run directory: it names the instance, and holds the lock, the log, the saved information and the link sockets."""

import json
import os
import stat
from dataclasses import asdict

from ipc.links import LINKS, socket_path
from ipc.value import value
from supervisor.errors import StartFailed

LINKS_DIRECTORY = "links"
STATE_NAME = "state.json"
LOG_NAME = "ipsecd.log"
MAX_STATE_BYTES = 65536
DIRECTORY_MODE = 0o711
"""Everybody may pass through to a socket that is his, nobody may look around."""
MAX_SOCKET_PATH = 107
"""sun_path of a Unix socket, without its ending zero (unix(7))."""


@value
class SavedRole:
    """A child, as the saved information names it."""

    role: str
    pid: int
    start_time: float


@value
class SavedState:
    """What others can read about a running instance, also when it does not answer."""

    pid: int
    start_time: float
    """Seconds since boot."""
    boot_id: str
    spd_path: str
    data_path: str
    roles: tuple[SavedRole, ...]
    network_namespace: int = 0
    """Inode of /proc/PID/ns/net."""
    ip_forward_before: str = ""
    """What net.ipv4.ip_forward was before it was set, "0" or "1"; empty if it was not set."""


class RunDirectory:
    """The run directory of one instance."""

    def __init__(self, path: str) -> None:
        self.path = path

    def prepare(self) -> None:
        """Makes it, or looks that it is safe; StartFailed if it is not."""
        longest = max(len(os.fsencode(socket_path(self.path, link))) for link in LINKS)
        if longest > MAX_SOCKET_PATH:
            raise StartFailed(
                f"{self.path}: its name must be {longest - MAX_SOCKET_PATH} bytes shorter, for the sockets in it"
            )
        try:
            os.makedirs(self.path, DIRECTORY_MODE, exist_ok=True)
            os.makedirs(f"{self.path}/{LINKS_DIRECTORY}", DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            raise StartFailed(f"{error.filename}: {error.strerror}") from error
        _refuse_unsafe(self.path)
        _refuse_unsafe(f"{self.path}/{LINKS_DIRECTORY}")
        self._refuse_unreachable()

    def remove_sockets(self) -> int:
        """Removes the link sockets; how many there were."""
        return sum(_unlink(socket_path(self.path, link)) for link in LINKS)

    def write_state(self, state: SavedState) -> None:
        """Saves `state`, atomically."""
        temporary = f"{self.path}/.{STATE_NAME}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(state), file)
                file.write("\n")
            os.replace(temporary, f"{self.path}/{STATE_NAME}")
        except OSError:
            _unlink(temporary)
            raise

    def left_ip_forward(self, boot_id: str, network_namespace: int) -> str:
        """What an instance of this boot and namespace that died here has not put back; empty if there is nothing."""
        try:
            with open(f"{self.path}/{STATE_NAME}", "rb") as file:
                left = json.loads(file.read(MAX_STATE_BYTES))
            if (left["boot_id"], left["network_namespace"]) == (boot_id, network_namespace):
                return left["ip_forward_before"] if left["ip_forward_before"] in ("0", "1") else ""
        except (OSError, ValueError, KeyError, TypeError):
            # No such file, or not one of ours: nothing was saved.
            return ""
        return ""

    def remove_state(self) -> bool:
        """Removes the saved information; whether there was any."""
        return _unlink(f"{self.path}/{STATE_NAME}")

    def open_log(self) -> int:
        """The log of a detached supervisor, for appending."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(f"{self.path}/{LOG_NAME}", flags, 0o600)

    def _refuse_unreachable(self) -> None:
        path = self.path
        while True:
            if not os.stat(path).st_mode & stat.S_IXOTH:
                raise StartFailed(
                    f"{path}: other users may not pass (mode lacks o+x), so no role could reach {self.path}"
                )
            if path == "/":
                return
            path = os.path.dirname(path)


def _refuse_unsafe(path: str) -> None:
    facts = os.lstat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise StartFailed(f"{path}: not a directory")
    if facts.st_uid != 0:
        raise StartFailed(f"{path}: belongs to uid {facts.st_uid}, not to root")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartFailed(f"{path}: others than root may write there (mode {stat.S_IMODE(facts.st_mode):04o})")


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True

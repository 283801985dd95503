"""What a supervisor has saved about its instance, for whoever finds it dead or silent. It is read, never executed."""

import json
from dataclasses import dataclass

MAX_STATE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedProcess:
    """A role's process, as the supervisor knew it last."""

    role: str
    pid: int
    start_time: float
    """Seconds since boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """The saved information of an instance."""

    path: str
    exists: bool
    network_namespace: int = 0
    """An inode; 0 if it is not known, or of another boot."""
    roles: tuple[SavedProcess, ...] = ()


def read(instance: str) -> SavedState:
    """The saved information; what can't be read counts as empty."""
    path = f"{instance}/state.json"
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(MAX_STATE_BYTES))
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file_of_boot:
            if content["boot_id"] != file_of_boot.read().strip():
                return SavedState(path=path, exists=True)
        return SavedState(
            path=path,
            exists=True,
            network_namespace=int(content.get("network_namespace", 0)),
            roles=tuple(
                SavedProcess(role=str(one["role"]), pid=int(one["pid"]), start_time=float(one["start_time"]))
                for one in content["roles"]
            ),
        )
    except FileNotFoundError:
        return SavedState(path=path, exists=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SavedState(path=path, exists=True)

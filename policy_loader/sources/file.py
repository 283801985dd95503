"""What a file with a policy or a secret must be before a byte of it is read: root's, and closed to everybody else."""

from ipc.types import Secret
from ipc.value import value

_BITS = (
    (0o040, "the group may read it"),
    (0o020, "the group may write it"),
    (0o010, "the group may execute it"),
    (0o004, "others may read it"),
    (0o002, "others may write it"),
    (0o001, "others may execute it"),
)


@value
class SourceFile:
    """A policy in a file (`PolicySource`), as the supervisor has read it."""

    path: str
    content: Secret
    mode: int
    """Permission bits."""
    uid: int

    def complaints(self) -> tuple[str, ...]:
        """Whether others than root can read or write it."""
        return complaints(self.mode, self.uid)


def complaints(mode: int, uid: int) -> tuple[str, ...]:
    """What is wrong with a file of these permission bits and this owner, a sentence each; empty if nothing is."""
    found = []
    if uid != 0:
        found.append(f"belongs to uid {uid}: it must belong to root (chown root)")
    open_bits = [f"{words} (bit {bit:04o})" for bit, words in _BITS if mode & bit]
    if open_bits:
        found.append(f"mode is {mode & 0o7777:04o}: {', '.join(open_bits)}; it must be root's alone (chmod 0600)")
    return tuple(found)

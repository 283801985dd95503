"""What a file must be, by mode and owner, before it is believed or kept."""

from ipc.types import Secret
from ipc.value import value
from policy_loader.sources import file

_WRITABLE_BY_OTHERS = 0o022


@value
class FetchedFile:
    """A file that a policy names, or why it can't be had (`error` is then not empty)."""

    content: Secret
    mode: int
    uid: int
    error: str = ""


def secret_of(fetched: FetchedFile) -> Secret:
    """The content of a file that holds a secret: it must be root's alone; ValueError."""
    complaints = file.complaints(fetched.mode, fetched.uid)
    if complaints:
        raise ValueError("; ".join(complaints))
    return fetched.content


def public_of(fetched: FetchedFile) -> bytes:
    """The content of a file that all may read, and only root may write; ValueError."""
    if fetched.uid != 0:
        raise ValueError(f"belongs to uid {fetched.uid}: it must belong to root (chown root)")
    if fetched.mode & _WRITABLE_BY_OTHERS:
        raise ValueError(f"mode is {fetched.mode & 0o7777:04o}: only root may write it (chmod go-w)")
    return fetched.content.reveal()

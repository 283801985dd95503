"""Reading the files that an unprivileged loader can't open: the SPD and the credentials that it names.

The supervisor only looks that a file is one that may be read at all; who may own it and with which mode is judged by
the loader, which is told both.
"""

import os
import stat
from dataclasses import dataclass

from ipc.types import Secret
from supervisor.errors import FileMissing, FileRefused

MAX_CREDENTIAL_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """A file as it was read."""

    path: str
    content: Secret
    mode: int
    """Permission bits."""
    uid: int


def read_file(path: str, max_bytes: int) -> FileContent:
    """The regular file at `path`, no symbolic link and at most `max_bytes` long; else FileRefused or FileMissing."""
    if not os.path.isabs(path) or "\0" in path:
        raise FileRefused(f"{path!r}: not an absolute path")
    try:
        # Not blocking: the open of a FIFO must come back, so that it can be refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileMissing(f"{path}: {error.strerror}") from error
    except OSError as error:
        reason = "a symbolic link, which is not followed" if os.path.islink(path) else error.strerror
        raise FileRefused(f"{path}: {reason}") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise FileRefused(f"{path}: not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise FileRefused(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise FileRefused(f"{path}: longer than {max_bytes} bytes")
    return FileContent(path=path, content=Secret(content), mode=stat.S_IMODE(facts.st_mode), uid=facts.st_uid)

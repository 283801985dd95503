"""Reading the files that an unprivileged loader can't open (the SPD and the credentials that it names); replacing one.

The supervisor only looks that a file is one that may be read at all; who may own it and with which mode is judged by
the loader, which is told both.
"""

import contextlib
import dataclasses
import os
import stat

from ipc.generations import templates_of
from ipc.messages import MAX_POLICY_BYTES, MAX_TEMPLATES_BYTES
from ipc.types import Secret
from ipc.value import value
from supervisor.errors import FileMissing, FileRefused


@value
class FileContent:
    """A file as it was read."""

    path: str
    content: Secret
    mode: int
    """Permission bits."""
    uid: int
    templates: "FileContent | None" = None
    """Of a policy file: the templates beside it, if there are any."""


def read_policy(path: str) -> FileContent:
    """The policy file at `path` and the templates beside it; FileRefused or FileMissing as `read_file`."""
    file = read_file(path, MAX_POLICY_BYTES)
    try:
        templates = read_file(templates_of(path), MAX_TEMPLATES_BYTES)
    except FileMissing:
        return file
    return dataclasses.replace(file, templates=templates)


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


class Replacement:
    """A new file, written and on the disk, that takes the place of the one at `path` at once or not at all.

    Root's alone: its mode is 0600. OSError, and nothing is left, if it can't be written.
    """

    def __init__(self, path: str, content: Secret) -> None:
        self._path = path
        self._temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
        self.discard()
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.reveal())
                file.flush()
                os.fsync(descriptor)
        except OSError:
            self.discard()
            raise

    def commit(self) -> None:
        """Takes the place; OSError if it can't."""
        os.replace(self._temporary, self._path)
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Leaves the old file alone. Harmless after a commit."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)


def replace_file(path: str, content: Secret | bytes) -> None:
    """Writes a file of root's alone, whole or not at all; OSError leaves the one that was there."""
    replacement = Replacement(path, content if isinstance(content, Secret) else Secret(content))
    try:
        replacement.commit()
    except OSError:
        replacement.discard()
        raise

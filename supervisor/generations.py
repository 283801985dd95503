"""Keeping earlier policies: the backup file, the last generations, and the mark of a policy that nobody confirmed.

All of it lies beside the policy file (`ipc/generations.py` says where), for root alone, since it holds secrets. The
newest generation is what was in force last and was to stay; a policy that waits for confirmation is not among them.
"""

import contextlib
import hashlib
import os
import stat
import time

from ipc.generations import backup_of, directory_of, generation_at, generations, templates_of
from supervisor.errors import FileRefused
from supervisor.files import FileContent, Replacement, read_file, read_policy, replace_file

KEPT = 20
DIRECTORY_MODE = 0o700
UNCONFIRMED_NAME = "unconfirmed"
MAX_MARK_BYTES = 64


def digest(file: FileContent) -> str:
    """Names the content of a policy file and its templates."""
    hashed = hashlib.sha256()
    for part in (file, file.templates):
        content = part.content.reveal() if part is not None else b""
        hashed.update(b"%d " % (-1 if part is None else len(content)) + content)
    return hashed.hexdigest()


class Generations:
    """What is kept of the policies of one file."""

    def __init__(self, spd_path: str) -> None:
        self.spd_path = spd_path
        self.backup_path = backup_of(spd_path)
        self.problem = ""
        """Why the last policy could not be kept; empty if it was."""
        self.number = 0
        """Of the generation in force; 0 if it is not kept."""
        self._directory = directory_of(spd_path)

    def newest(self) -> FileContent | None:
        """The policy that was in force last; None if none is kept. FileRefused if it can't be read."""
        try:
            kept = generations(self.spd_path)
        except OSError as error:
            raise FileRefused(f"{self._directory}: {error.strerror}") from error
        return read_policy(kept[-1].path) if kept else None

    def numbered(self, number: int) -> FileContent:
        """The policy of generation `number`; FileRefused if it is not kept, or can't be read."""
        try:
            kept = {one.number: one for one in generations(self.spd_path)}
        except OSError as error:
            raise FileRefused(f"{self._directory}: {error.strerror}") from error
        if number not in kept:
            numbers = f"{min(kept)} to {max(kept)} are" if kept else "none is"
            raise FileRefused(f"generation {number} of {self.spd_path} is not kept; {numbers}")
        return read_policy(kept[number].path)

    def keep(self, file: FileContent) -> None:
        """Keeps `file` as the newest generation, if it is not that already; OSError or FileRefused if it can't be."""
        kept = generations(self.spd_path)
        if kept and digest(read_policy(kept[-1].path)) == digest(file):
            self.number = kept[-1].number
            return
        self._make_directory()
        number = kept[-1].number + 1 if kept else 1
        generation = generation_at(self._directory, number, int(time.time()))
        if file.templates is not None:
            replace_file(generation.templates_path, file.templates.content)
        # Last, since this is the file that makes it a generation.
        replace_file(generation.path, file.content)
        for old in kept[: max(0, len(kept) + 1 - KEPT)]:
            _remove(old.path)
            _remove(old.templates_path)
        self.number = number

    def came_into_force(self, file: FileContent, before: FileContent | None) -> None:
        """Keeps `file`; what was in force `before` it becomes the backup. `problem` has what went wrong."""
        try:
            if before is not None and before.path != self.backup_path and digest(before) != digest(file):
                replace_file(self.backup_path, before.content)
            self.keep(file)
        except (OSError, FileRefused) as error:
            self.number = 0
            self.problem = f"the backup of {self.spd_path} can't be kept: {error}"
        else:
            self.problem = ""

    # ------------------------------------------------------------- put back as the policy file

    def prepare_to_put_back(self, file: FileContent) -> tuple[Replacement, ...]:
        """Writes `file` and its templates beside those they will replace; OSError if they can't be written."""
        replacements = [Replacement(self.spd_path, file.content)]
        if file.templates is not None:
            path = templates_of(self.spd_path)
            try:
                replacements.append(Replacement(path, file.templates.content))
            except OSError:
                replacements[0].discard()
                raise
        return tuple(replacements)

    def rescue_edited(self, in_force: FileContent) -> str:
        """Keeps a policy file that is about to be replaced, if it is not what ran; says where, or nothing."""
        try:
            present = read_policy(self.spd_path)
        except FileRefused:
            return ""
        if digest(present) == digest(in_force):
            return ""
        path = f"{self.spd_path}.replaced"
        replace_file(path, present.content)
        return f"{self.spd_path} was not what ran: it is kept as {path}"

    def put_templates_away(self, file: FileContent) -> str:
        """Where templates are kept that `file`, which was put back, did not have; empty if there are none."""
        path = templates_of(self.spd_path)
        if file.templates is not None or not os.path.lexists(path):
            return ""
        os.replace(path, f"{path}.replaced")
        return f"{path} did not exist then: it is kept as {path}.replaced"

    # ------------------------------------------------------------- confirmation

    def mark_unconfirmed(self, file: FileContent, before: FileContent) -> None:
        """From now on a start takes `before`, and not `file`; OSError or FileRefused if that can't be written."""
        self.keep(before)
        self._make_directory()
        replace_file(self._mark, digest(file).encode())

    def clear_mark(self) -> None:
        """Every policy may be taken again; OSError if the mark can't be removed."""
        _remove(self._mark)

    def is_unconfirmed(self, file: FileContent) -> bool:
        """Whether `file` came into force to be confirmed, and was not."""
        try:
            return read_file(self._mark, MAX_MARK_BYTES).content.reveal().decode("ascii", "replace") == digest(file)
        except FileRefused:
            return False

    @property
    def _mark(self) -> str:
        return f"{self._directory}/{UNCONFIRMED_NAME}"

    def _make_directory(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, DIRECTORY_MODE)
        facts = os.lstat(self._directory)
        if not stat.S_ISDIR(facts.st_mode):
            raise FileRefused(f"{self._directory}: not a directory")
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
            raise FileRefused(
                f"{self._directory}: must be root's alone (mode {stat.S_IMODE(facts.st_mode):04o}, uid {facts.st_uid})"
            )


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)

"""What is kept of earlier policies, and where: the backup, and the generations that were in force.

Both belong to a policy file, not to an instance, and are found beside it: `FILE.bak`, and `FILE.generations/` with one
file for each policy that came into force, and one for the templates it had. The supervisor writes them; ipsecctl shows
them, with or without a supervisor. A name says all about its file but the content: number, and time in UTC.
"""

import calendar
import os
import re
import time

from ipc.value import value

TEMPLATES_NAME = "ipsec.templates"
"""The file with shared settings, in the directory of the policy file."""
BACKUP_SUFFIX = ".bak"
DIRECTORY_SUFFIX = ".generations"
SPD_SUFFIX = ".spd"
TEMPLATES_SUFFIX = ".templates"
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"(\d{6,9})-(\d{8}T\d{6}Z)" + re.escape(SPD_SUFFIX))


@value
class Generation:
    """A policy that was in force."""

    number: int
    """From 1; never used again."""
    in_force_at: int
    """Since when: seconds since the epoch."""
    path: str
    templates_path: str
    """Where its templates would be; without such a file it had none."""


def backup_of(spd_path: str) -> str:
    """The file with the policy that was in force before the present one."""
    return spd_path + BACKUP_SUFFIX


def directory_of(spd_path: str) -> str:
    """The directory of the generations."""
    return spd_path + DIRECTORY_SUFFIX


def templates_of(path: str) -> str:
    """Where the templates of a policy file are: beside it, or, for a generation, those that it had."""
    directory, name = os.path.split(path)
    if directory.endswith(DIRECTORY_SUFFIX) and _NAME.fullmatch(name):
        return path.removesuffix(SPD_SUFFIX) + TEMPLATES_SUFFIX
    return os.path.join(directory, TEMPLATES_NAME)


def generation_at(directory: str, number: int, in_force_at: int) -> Generation:
    """The generation of this number and time, with its names."""
    stem = f"{directory}/{number:06d}-{time.strftime(_TIME_FORMAT, time.gmtime(in_force_at))}"
    return Generation(
        number=number,
        in_force_at=in_force_at,
        path=stem + SPD_SUFFIX,
        templates_path=stem + TEMPLATES_SUFFIX,
    )


def generations(spd_path: str) -> tuple[Generation, ...]:
    """What is kept, oldest first; none if there is no directory. OSError if it can't be read."""
    directory = directory_of(spd_path)
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    return tuple(sorted(_known(directory, names), key=lambda one: one.number))


def _known(directory: str, names: list[str]) -> list[Generation]:
    found = []
    for name in names:
        parts = _NAME.fullmatch(name)
        if parts is None:
            continue
        try:
            moment = calendar.timegm(time.strptime(parts[2], _TIME_FORMAT))
        except ValueError:
            continue
        found.append(generation_at(directory, int(parts[1]), moment))
    return found

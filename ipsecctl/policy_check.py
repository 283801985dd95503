"""Whether a policy file is good, and what it says, found out without a running daemon, by the loader's own parser."""

import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipc.types import Secret
from ipsecctl.errors import BadPolicy, CommandError, NotConfigured

if TYPE_CHECKING:
    from policy_loader.compile import Policy
    from policy_loader.policy_file import PolicyFile

MAX_POLICY_BYTES = 64 * 1024 * 1024
MAX_CREDENTIAL_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A policy file that is good, and the policy in it; `warnings` are what is doubtful."""

    file: "PolicyFile"
    policy: "Policy"
    warnings: tuple[str, ...]


def errors_of(path: str) -> tuple[str, ...]:
    """All that is wrong with the policy file at `path`, the files and the interfaces it names.

    CommandError if it can't be read, NotConfigured if there is none.
    """
    try:
        checked = check(path)
    except BadPolicy as error:
        return error.complaints
    return _missing(checked.policy.interfaces)


def check(path: str) -> Checked:
    """The policy of the file at `path`; BadPolicy with all that is wrong, CommandError and NotConfigured as above."""
    # Here, not above: the parser takes longer to load than most commands take to run.
    from policy_loader.errors import PolicyError
    from policy_loader.policy_file import FetchedFile, read
    from policy_loader.rule_ids import RuleIds

    def fetch(name: str) -> FetchedFile:
        try:
            content, facts = _read(name, MAX_CREDENTIAL_BYTES)
        except OSError as error:
            return FetchedFile(content=Secret(b""), mode=0, uid=0, error=f"{name}: {error.strerror}")
        return FetchedFile(content=Secret(content), mode=stat.S_IMODE(facts.st_mode), uid=facts.st_uid)

    try:
        content, facts = _read(path, MAX_POLICY_BYTES)
        file = read(path, content, stat.S_IMODE(facts.st_mode), facts.st_uid)
        loaded = file.compile({name: fetch(name) for name in file.secret_files()}, RuleIds())
    except FileNotFoundError as error:
        raise NotConfigured(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except PolicyError as error:
        raise BadPolicy(error.complaints) from error
    return Checked(file=file, policy=loaded.policy, warnings=loaded.warnings)


def _missing(interfaces: tuple[str, ...]) -> tuple[str, ...]:
    present = [name for _, name in socket.if_nameindex()]
    return tuple(
        f"the policy names interface {name}; this host has {', '.join(present)}"
        for name in interfaces
        if name not in present
    )


def _read(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(max_bytes), os.fstat(descriptor)

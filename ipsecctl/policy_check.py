"""Whether a policy file is good, and what it says, found out without a running daemon, by the loader's own parser."""

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipc.generations import templates_of
from ipc.types import IpAddress, Secret
from ipsecctl.errors import BadPolicy, CommandError, NotConfigured
from ipsecctl.modules import ModuleFailed, run_module

if TYPE_CHECKING:
    from policy_loader.compile import Policy
    from policy_loader.policy_file import PolicyFile
    from policy_loader.sources.file import SourceFile

MAX_CREDENTIAL_BYTES = 4 * 1024 * 1024
"""As the daemon has it."""
RESOLVER = "supervisor.resolve"
RESOLVE_WITHIN_S = 3.0
"""For each host name, as the daemon has it."""


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
    return missing_interfaces(checked.policy)


def check(path: str, *, look_up: bool = False) -> Checked:
    """The policy of the file at `path`; BadPolicy with all that is wrong, CommandError and NotConfigured as above.

    Host names of peers are looked up only if `look_up`; else there is a warning of each.
    """
    # Here, not above: the parser takes longer to load than most commands take to run.
    from policy_loader.credentials.files import FetchedFile
    from policy_loader.errors import PolicyError
    from policy_loader.policy_file import FoundHost, read_source
    from policy_loader.rule_ids import RuleIds

    def fetch(name: str) -> FetchedFile:
        try:
            content, facts = _read(name, MAX_CREDENTIAL_BYTES)
        except OSError as error:
            return FetchedFile(content=Secret(b""), mode=0, uid=0, error=f"{name}: {error.strerror}")
        return FetchedFile(content=Secret(content), mode=stat.S_IMODE(facts.st_mode), uid=facts.st_uid)

    try:
        file = read_source(_policy_at(path), _templates_for(path))
        found = {name: _addresses_of(name) for name in file.host_names() if look_up}
        hosts = {
            name: FoundHost(addresses=one, error="" if one else "it has no address") for name, one in found.items()
        }
        loaded = file.compile({name: fetch(name) for name in file.secret_files()}, RuleIds(), hosts)
    except FileNotFoundError as error:
        raise NotConfigured(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except PolicyError as error:
        raise BadPolicy(error.complaints) from error
    return Checked(file=file, policy=loaded.policy, warnings=loaded.warnings)


def missing_interfaces(policy: "Policy") -> tuple[str, ...]:
    """A sentence for each interface that the policy names and this host has not: a start would be refused."""
    present = [name for _, name in socket.if_nameindex()]
    return tuple(
        f"the policy names interface {name}; this host has {', '.join(present)}"
        for name in policy.interfaces
        if name not in present
    )


def _policy_at(path: str) -> "SourceFile":
    from ipc.messages import MAX_POLICY_BYTES
    from policy_loader.sources.file import SourceFile

    content, facts = _read(path, MAX_POLICY_BYTES)
    return SourceFile(path=path, content=Secret(content), mode=stat.S_IMODE(facts.st_mode), uid=facts.st_uid)


def _templates_for(path: str) -> "SourceFile | None":
    try:
        return _policy_at(templates_of(path))
    except FileNotFoundError:
        return None


def _addresses_of(name: str) -> tuple[IpAddress, ...]:
    """What the daemon would find for a host name, by its own program; empty if nothing."""
    try:
        said = run_module(RESOLVER, name, str(os.getpid()), within_s=RESOLVE_WITHIN_S)
    except ModuleFailed:
        return ()
    return tuple(ipaddress.ip_address(line) for line in said.split())


def _read(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(max_bytes), os.fstat(descriptor)

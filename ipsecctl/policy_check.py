"""Whether a policy file is good, found out without a running daemon, by the loader's own parser."""

import os
import stat

from ipc.types import Secret
from ipsecctl.errors import CommandError

MAX_POLICY_BYTES = 64 * 1024 * 1024
MAX_CREDENTIAL_BYTES = 65536


def errors_of(path: str) -> tuple[str, ...]:
    """All that is wrong with the policy file at `path` and the files it names; CommandError if it can't be read."""
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
        policy = read(path, content, stat.S_IMODE(facts.st_mode), facts.st_uid)
        policy.compile({name: fetch(name) for name in policy.psk_files()}, RuleIds())
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except PolicyError as error:
        return error.complaints
    return ()


def _read(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(max_bytes), os.fstat(descriptor)

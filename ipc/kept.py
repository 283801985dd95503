"""What an instance remembers across boots: that it is in secure mode, and whether ipsecd is to come up at boot.

Each is a small file of root's, in /var/lib/ipsecd for the default instance, in `kept` of the run directory for any
other one: a network namespace of its own, and so its secure mode, does not outlive the machine either. The supervisor
and ipsecctl both read and write them. Entering secure mode is remembered first and done then, leaving it is done first
and forgotten then: whatever happens in between, the next boot finds everything blocked rather than open.
"""

import contextlib
import os

DEFAULT_INSTANCE = "/run/ipsecd"
DEFAULT_DIRECTORY = "/var/lib/ipsecd"
SECURE_NAME = "secure"
TRIAL_NAME = "secure-on-trial"
BOOT_NAME = "boot"
UNCONFIRMED_NAME = "unconfirmed"
SECURE_STAYS = "secure mode stays on: the kernel drops everything; ipsecctl insecure ends that"
SECURE_ENDED = "secure mode has ended, since ipsecd is disabled"
TRIAL_ENDED = "secure mode is off again, as before the policy that was not confirmed"
"""What a stop says of the mode, whoever sees to it."""
_ENABLED, _DISABLED = b"enabled\n", b"disabled\n"


def directory(instance: str) -> str:
    """Where `instance`, an absolute run directory, keeps them."""
    return DEFAULT_DIRECTORY if instance == DEFAULT_INSTANCE else f"{instance}/kept"


def unconfirmed(instance: str) -> str:
    """The file that is there while a start or secure mode waits to be confirmed: nothing is remembered meanwhile."""
    return f"{instance}/{UNCONFIRMED_NAME}"


def is_secure(instance: str) -> bool:
    """Whether secure mode is remembered."""
    return os.path.lexists(f"{directory(instance)}/{SECURE_NAME}")


def remember_secure(instance: str) -> None:
    """Remembers that secure mode is on; OSError if that can't be written."""
    _write(instance, SECURE_NAME, b"")


def forget_secure(instance: str) -> None:
    """Forgets it; harmless if it is forgotten. OSError if it can't be."""
    _remove(instance, SECURE_NAME)


def try_secure(instance: str) -> None:
    """Notes that secure mode is entered for a policy that nobody confirmed yet; OSError if that can't be written."""
    _write(instance, TRIAL_NAME, b"")


def is_secure_on_trial(instance: str) -> bool:
    """Whether secure mode was entered for such a policy, and for nothing else since: who ends that policy leaves it."""
    return os.path.lexists(f"{directory(instance)}/{TRIAL_NAME}") and not is_secure(instance)


def end_trial(instance: str) -> None:
    """The policy was confirmed, or is gone; harmless if there is none. OSError if that can't be noted."""
    _remove(instance, TRIAL_NAME)


def is_enabled(instance: str) -> bool:
    """Whether ipsecd was told to come up at boot."""
    return _boot(instance) == _ENABLED


def is_disabled(instance: str) -> bool:
    """Whether ipsecd was told not to; where nothing was told, both are False."""
    return _boot(instance) == _DISABLED


def set_enabled(instance: str, enabled: bool) -> None:
    """Tells it; OSError if that can't be written."""
    _write(instance, BOOT_NAME, _ENABLED if enabled else _DISABLED)


def _boot(instance: str) -> bytes:
    try:
        descriptor = os.open(f"{directory(instance)}/{BOOT_NAME}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 64)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _write(instance: str, name: str, content: bytes) -> None:
    where = directory(instance)
    if where != DEFAULT_DIRECTORY:
        os.makedirs(instance, 0o711, exist_ok=True)
    os.makedirs(where, 0o700, exist_ok=True)
    temporary = f"{where}/.{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, f"{where}/{name}")
    _flush(where)


def _remove(instance: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory(instance)}/{name}")
        _flush(directory(instance))


def _flush(where: str) -> None:
    """The names in the directory reach the disk too."""
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Secure mode, as ipsecctl changes it: by a program of the kernel agent's package, remembered by `ipc.kept`."""

from ipc import kept
from ipsecctl.errors import CommandError

PROGRAM = "kernel_agent.secure"
PROGRAM_WITHIN_S = 10.0


def is_on() -> bool:
    """Whether the kernel drops what no policy allows; CommandError if it does not say."""
    return _run("show") == "on"


def enter() -> None:
    """Has the kernel do so from now on; CommandError if it refuses."""
    _run("on")


def leave(instance: str) -> None:
    """Has the kernel pass again what no policy is about, and forgets the mode; CommandError if either fails."""
    _run("off")
    try:
        kept.forget_secure(instance)
        kept.end_trial(instance)
    except OSError as error:
        raise CommandError(f"secure mode is off, but comes back at the next boot: {error}") from error


def remember(instance: str) -> None:
    """Has the mode come back at boot; CommandError if that can't be written."""
    try:
        kept.remember_secure(instance)
    except OSError as error:
        raise CommandError(f"secure mode can't be remembered in {kept.directory(instance)}: {error}") from error


def stays_at_stop(instance: str) -> bool:
    """Whether a stop leaves everything blocked; CommandError if the kernel does not say."""
    return not kept.is_disabled(instance) and not kept.is_secure_on_trial(instance) and is_on()


def end_if_disabled(instance: str) -> tuple[str, ...]:
    """What a stop does about the mode where there is no supervisor to do it; a line if there is something to say."""
    from ipsecctl.processes import neighbour

    try:
        if neighbour(instance) or not is_on():
            return ()
        if stays_at_stop(instance):
            return (kept.SECURE_STAYS,)
        tried = kept.is_secure_on_trial(instance)
        leave(instance)
    except CommandError as error:
        return (str(error),)
    return (kept.TRIAL_ENDED if tried else kept.SECURE_ENDED,)


def _run(word: str) -> str:
    from ipsecctl.modules import run_module

    return run_module(PROGRAM, word, within_s=PROGRAM_WITHIN_S).strip()

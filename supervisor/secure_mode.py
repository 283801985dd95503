"""Secure mode as the supervisor has to do with it: a start with unmatched = "discard" enters it, a stop may end it.

The mode is the kernel's own: `kernel_agent.secure` is run to change it, and the kernel is asked each time for it.
"""

import logging
import os

from ipc import default_policies, kept
from ipc.patience import patient
from ipc.types import Unmatched
from supervisor.spawn import ProgramFailed, run_program

log = logging.getLogger(__name__)

PROGRAM = "kernel_agent.secure"
PROGRAM_WITHIN_S = patient(10.0)
ANSWER_WITHIN_S = 1.0
ENTERED = "secure mode is on: the kernel drops what the policy does not allow, with or without ipsecd"
ENTERED_BESIDE_POLICY = (
    'secure mode is on: the kernel drops what no rule matches, although the policy says unmatched = "bypass"; '
    "ipsecctl insecure ends that"
)


class NotChanged(Exception):
    """Secure mode could not be entered or left; the text says why."""


def is_on() -> bool:
    """Whether the kernel drops what no policy allows. A kernel that does not say so does not."""
    try:
        return default_policies.all_block(ANSWER_WITHIN_S)
    except TimeoutError:
        return False


def follow(instance: str, unmatched: Unmatched) -> tuple[str, ...]:
    """The mode as the policy in force has it: entered where that discards what no rule matches; what there is to say.

    It is remembered, unless the start is still to be confirmed. What was entered for a policy that was not confirmed,
    perhaps by a supervisor before us, is left. NotChanged if the mode can't be entered or left.
    """
    on = is_on()
    try:
        if unmatched is Unmatched.DISCARD:
            if not os.path.lexists(kept.unconfirmed(instance)):
                kept.remember_secure(instance)
            if not on:
                _run("on")
            kept.end_trial(instance)
            return (ENTERED,)
        tried = on and kept.is_secure_on_trial(instance)
        if tried:
            _run("off")
        kept.end_trial(instance)
    except OSError as error:
        raise NotChanged(f"secure mode can't be remembered in {kept.directory(instance)}: {error}") from error
    if tried:
        return (kept.TRIAL_ENDED,)
    return (ENTERED_BESIDE_POLICY,) if on else ()


def follow_reload(instance: str, unmatched: Unmatched, *, to_be_confirmed: bool) -> tuple[str, ...]:
    """As `follow`, for a policy that came by a reload: that the mode can't be changed is a warning.

    For one that is to be confirmed the mode is only entered, and on trial.
    """
    try:
        if not to_be_confirmed:
            return follow(instance, unmatched)
        if unmatched is not Unmatched.DISCARD or is_on():
            return ()
        try:
            kept.try_secure(instance)
        except OSError as error:
            raise NotChanged(f"what to go back to can't be noted in {kept.directory(instance)}: {error}") from error
        _run("on")
    except NotChanged as error:
        return (f"warning: {error}",)
    return (ENTERED,)


def end_if_disabled(instance: str) -> str:
    """At a stop, when all else is gone: ends secure mode if ipsecd is disabled, or if the mode was entered on trial.

    What there is to say of it.
    """
    if not is_on():
        return ""
    tried = kept.is_secure_on_trial(instance)
    if not (tried or kept.is_disabled(instance)):
        return kept.SECURE_STAYS
    try:
        _run("off")
        kept.forget_secure(instance)
        kept.end_trial(instance)
    except (NotChanged, OSError) as error:
        return f"secure mode could not be ended: {error}"
    return kept.TRIAL_ENDED if tried else kept.SECURE_ENDED


def _run(word: str) -> None:
    try:
        said = run_program(PROGRAM, word, within_s=PROGRAM_WITHIN_S)
    except ProgramFailed as error:
        raise NotChanged(f"{PROGRAM} {word}: {error}") from error
    log.info("secure mode: %s", said)

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
LEFT_AGAIN = "secure mode is off again, as before the policy that was not confirmed"


class NotChanged(Exception):
    """Secure mode could not be entered or left; the text says why."""


def is_on() -> bool:
    """Whether the kernel drops what no policy allows. A kernel that does not say so does not."""
    try:
        return default_policies.all_block(ANSWER_WITHIN_S)
    except TimeoutError:
        return False


def enter_if_wanted(instance: str, unmatched: Unmatched) -> tuple[str, ...]:
    """Enters secure mode where the policy in force discards what no rule matches; what there is to say of the mode.

    It is remembered, unless it is still to be confirmed. NotChanged if it can't be entered.
    """
    on = is_on()
    if unmatched is not Unmatched.DISCARD:
        return (ENTERED_BESIDE_POLICY,) if on else ()
    if not os.path.lexists(kept.unconfirmed(instance)):
        try:
            kept.remember_secure(instance)
        except OSError as error:
            raise NotChanged(f"secure mode can't be remembered in {kept.directory(instance)}: {error}") from error
    if not on:
        _run("on")
    return (ENTERED,)


class ReloadedMode:
    """Secure mode follows the policies that come into force by a reload. That it can't is a warning."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._waits = False
        """It was entered for a policy that is still to be confirmed."""

    def follow(self, unmatched: Unmatched, *, to_be_confirmed: bool) -> tuple[str, ...]:
        """As `enter_if_wanted`; what was entered for a policy that nobody confirmed is left with it."""
        try:
            if to_be_confirmed and unmatched is Unmatched.DISCARD and not is_on():
                self._waits = True
                _run("on")
                return (ENTERED,)
            if self._waits and unmatched is Unmatched.BYPASS:
                _run("off")
                self._waits = False
                return (LEFT_AGAIN,)
            if not to_be_confirmed:
                self._waits = False
                return enter_if_wanted(self._instance, unmatched)
        except NotChanged as error:
            return (f"warning: {error}",)
        return ()


def end_if_disabled(instance: str) -> str:
    """At a stop, when all else is gone: ends secure mode if ipsecd is disabled; what there is to say of it."""
    if not is_on():
        return ""
    if not kept.is_disabled(instance):
        return kept.SECURE_STAYS
    try:
        _run("off")
        kept.forget_secure(instance)
    except (NotChanged, OSError) as error:
        return f"secure mode could not be ended: {error}"
    return kept.SECURE_ENDED


def _run(word: str) -> None:
    try:
        said = run_program(PROGRAM, word, within_s=PROGRAM_WITHIN_S)
    except ProgramFailed as error:
        raise NotChanged(f"{PROGRAM} {word}: {error}") from error
    log.info("secure mode: %s", said)

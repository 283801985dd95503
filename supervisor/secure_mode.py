"""Secure mode as the supervisor has to do with it: a start with unmatched = "discard" enters it, a stop may end it.

The mode is the kernel's own (see `kernel_agent.secure`, which is run to change it) and may be changed beside us, so it
is asked of the kernel each time; that takes one message, since a status must not wait for a program.
"""

import logging
import os
import socket
import struct

from ipc import kept
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

_NETLINK_XFRM = 6
_XFRM_MSG_GETDEFAULT = 0x28
_NLM_F_REQUEST = 1
_BLOCK = 1
_MESSAGE = struct.Struct("=IHHII3Bx")
"""struct nlmsghdr, and struct xfrm_userpolicy_default { __u8 in, fwd, out; } of linux/xfrm.h."""


class NotChanged(Exception):
    """Secure mode could not be entered or left; the text says why."""


def is_on() -> bool:
    """Whether the kernel blocks by default in all directions. A kernel that does not say so does not."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_XFRM) as asked:
            asked.settimeout(ANSWER_WITHIN_S)
            asked.send(_MESSAGE.pack(_MESSAGE.size, _XFRM_MSG_GETDEFAULT, _NLM_F_REQUEST, 1, 0, 0, 0, 0))
            answer = asked.recv(4096)
    except OSError:
        return False
    if len(answer) < _MESSAGE.size:
        return False
    _length, kind, _flags, _sequence, _pid, *defaults = _MESSAGE.unpack_from(answer)
    return kind == _XFRM_MSG_GETDEFAULT and defaults == [_BLOCK] * 3


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

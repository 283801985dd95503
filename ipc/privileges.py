"""Giving up privileges for good, in the one order that holds (capabilities(7), prctl(2)).

Groups, gid, uid and capabilities; then the parent-death signal, which a uid change clears; not dumpable;
`no_new_privs`; then the place for Landlock and seccomp. All of it per thread, so before the first ZeroMQ context.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct

from ipc.value import value

CAP_NET_ADMIN = 12

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class PrivilegesKept(Exception):
    """A privilege could not be dropped, or could be had back: the process must not go on."""


@value
class Capabilities:
    """The three sets of a thread, as bit masks by capability number."""

    effective: int
    permitted: int
    inheritable: int


def drop(*, uid: int, gid: int, capabilities: frozenset[int], parent: int) -> None:
    """Becomes `uid`:`gid` with just `capabilities` (numbers), irrevocably; dies with `parent`.

    PrivilegesKept if any of it does not hold afterwards.
    """
    wanted = sum(1 << number for number in capabilities)
    _drop_bounding_set()
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(Capabilities(effective=wanted, permitted=wanted, inheritable=0))
    _prctl(_PR_SET_KEEPCAPS, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise PrivilegesKept("the supervisor died while this process started")
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Landlock and then seccomp belong here.
    verify(uid=uid, gid=gid, wanted=wanted)


def verify(*, uid: int, gid: int, wanted: int) -> None:
    """Looks that privileges are as they should be and tries to get them back; PrivilegesKept if that works."""
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise PrivilegesKept("uid, gid or groups are not as set")
    held = _get_capabilities()
    if held != Capabilities(effective=wanted, permitted=wanted, inheritable=0):
        raise PrivilegesKept(f"capabilities are {held}")
    if _prctl(_PR_GET_NO_NEW_PRIVS) != 1 or _prctl(_PR_GET_DUMPABLE) != 0:
        raise PrivilegesKept("no_new_privs is not set, or the process is dumpable")
    with contextlib.suppress(PermissionError):
        os.setresuid(0, 0, 0)
        raise PrivilegesKept("root's uid could be had back")
    with contextlib.suppress(PermissionError):
        os.setgroups([0])
        raise PrivilegesKept("root's groups could be had back")
    everything = (1 << 41) - 1
    with contextlib.suppress(PermissionError):
        _set_capabilities(Capabilities(effective=everything, permitted=everything, inheritable=0))
        raise PrivilegesKept("capabilities could be had back")


def _drop_bounding_set() -> None:
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        _prctl(_PR_CAPBSET_DROP, number)
        number += 1


def _prctl(option: int, argument: int = 0) -> int:
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
    return result


def _set_capabilities(sets: Capabilities) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low = (sets.effective & 0xFFFFFFFF, sets.permitted & 0xFFFFFFFF, sets.inheritable & 0xFFFFFFFF)
    high = (sets.effective >> 32, sets.permitted >> 32, sets.inheritable >> 32)
    if _libc.capset(header, struct.pack("=6I", *low, *high)) < 0:
        error = ctypes.get_errno()
        raise PermissionError(error, f"capset: {os.strerror(error)}")


def _get_capabilities() -> Capabilities:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capget: {os.strerror(error)}")
    effective, permitted, inheritable, effective2, permitted2, inheritable2 = struct.unpack("=6I", data.raw)
    return Capabilities(
        effective=effective | effective2 << 32,
        permitted=permitted | permitted2 << 32,
        inheritable=inheritable | inheritable2 << 32,
    )

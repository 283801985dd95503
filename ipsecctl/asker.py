"""Who runs this command, for the record: the login user (who has become root since), the terminal, sudo, our parent."""

import os
import pwd
from pathlib import Path

_NO_LOGIN = ("", "4294967295")


def asker() -> str:
    """In words: "alice (login uid 1000), on /dev/pts/3, by sudo as alice, pid 4711"."""
    parts = [_login()]
    terminal = _terminal()
    if terminal:
        parts.append(f"on {terminal}")
    by_sudo = os.environ.get("SUDO_USER", "")
    if by_sudo:
        parts.append(f"by sudo as {by_sudo}")
    return ", ".join([*parts, f"pid {os.getppid()}"])


def _login() -> str:
    """The login uid, which stays what it was through su and sudo (audit(7)); else our own."""
    try:
        login = Path("/proc/self/loginuid").read_text().strip()
    except OSError:
        login = ""
    uid, kind = (os.getuid(), "uid") if login in _NO_LOGIN else (int(login), "login uid")
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({kind} {uid})"
    except KeyError:
        return f"{kind} {uid}"


def _terminal() -> str:
    """The terminal of standard input, output or error; empty if it is none."""
    for descriptor in (0, 1, 2):
        try:
            return os.ttyname(descriptor)
        except OSError:
            continue
    return ""

"""A start, a stop or secure mode that is undone by itself unless `ipsecctl confirm` follows.

A file in the run directory says that something waits, and a process of its own, which survives the terminal, waits for
the file to go. Whoever takes the file away first has decided: `confirm` removes it, the waiting process renames it
when the time is over, and then undoes what was done. The time counts from the end of the command that has asked for
it, however that ended: it may itself be cut off.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time

from ipc import kept
from ipc.patience import patient
from ipc.roles import module_command
from ipsecctl.errors import CommandError
from ipsecctl.modules import environment

WAITER = "ipsecctl.pending"
LOOK_EVERY_S = 0.1
UNDO_WITHIN_S = patient(60.0)
TAKEN_SUFFIX = ".over"


def begin(instance: str, seconds: float, *undo: str) -> None:
    """From now on it waits: after `seconds` the ipsecctl commands `undo` are run, in order.

    CommandError if something waits already.
    """
    marker = kept.unconfirmed(instance)
    try:
        os.makedirs(instance, 0o711, exist_ok=True)
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise CommandError(f"something waits for `ipsecctl confirm` already ({marker})") from None
    except OSError as error:
        raise CommandError(f"{marker}: {error.strerror}") from error
    subprocess.Popen(
        module_command(WAITER, instance, f"{seconds:g}", str(os.getpid()), *undo),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment(),
        start_new_session=True,
    )


def end(instance: str) -> bool:
    """Nothing is undone any more; whether something has waited."""
    try:
        os.unlink(kept.unconfirmed(instance))
    except FileNotFoundError:
        return False
    return True


def wait(instance: str, seconds: float, command: int, undo: list[str]) -> None:
    """Waits for the end, or for the time to be over since our parent `command` has ended; then undoes."""
    marker = kept.unconfirmed(instance)
    deadline = time.monotonic() + seconds
    while os.path.lexists(marker):
        if os.getppid() == command:
            deadline = time.monotonic() + seconds
        if time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
            continue
        try:
            os.rename(marker, marker + TAKEN_SUFFIX)
        except FileNotFoundError:
            return
        for words in undo:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    module_command("ipsecctl", "--instance", instance, *shlex.split(words)),
                    stdin=subprocess.DEVNULL,
                    check=False,
                    timeout=UNDO_WITHIN_S,
                )
        os.unlink(marker + TAKEN_SUFFIX)


def main() -> int:
    """The waiting process: INSTANCE SECONDS PARENT COMMAND..."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    wait(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    return 0


if __name__ == "__main__":
    sys.exit(main())

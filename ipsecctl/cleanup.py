"""What a stop does when there is no supervisor to do it: a list of steps that may be taken again and again."""

import os
import subprocess
import time

from ipc.links import LINKS, socket_path
from ipc.status_socket import status_socket_path
from ipsecctl import lock_file, processes
from ipsecctl.modules import environment, module_command

GRACE_S = 2.0
CLEANER = "kernel_agent.clean"
CLEAN_WITHIN_S = 10.0


def clean_up(instance: str) -> tuple[str, ...]:
    """Ends the instance's processes and removes its kernel objects and files; a line for each thing found."""
    return (*end_processes(instance), *clean_kernel(), *remove_files(instance))


def end_processes(instance: str) -> tuple[str, ...]:
    """Ends every process of `instance`, the supervisor first: it would start the others again."""
    found = sorted(processes.find(instance), key=lambda process: process.role.value != "supervisor")
    return tuple(processes.end(process, instance, GRACE_S) for process in found)


def clean_kernel() -> tuple[str, ...]:
    """Removes kernel objects that bear our tag."""
    try:
        done = subprocess.run(
            module_command(CLEANER),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            timeout=CLEAN_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (f"kernel objects may be left: {CLEANER} did not finish within {CLEAN_WITHIN_S:g} s",)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return (f"kernel objects may be left: {reason[0]}",)
    return tuple(f"kernel: {line}" for line in done.stdout.splitlines() if line.strip())


def remove_files(instance: str) -> tuple[str, ...]:
    """Removes what a supervisor that died left; not while a lock is held."""
    if lock_file.look(instance).held:
        return (f"the lock of {instance} is held: its files stay",)
    sockets = (*(socket_path(instance, link) for link in LINKS), status_socket_path(instance))
    names = (*sockets, f"{instance}/state.json", f"{instance}/ipsecd.lock")
    return tuple(f"removed {path}" for path in names if _unlink(path))


def wait_until_gone(instance: str, deadline: float) -> bool:
    """Waits until the lock is free and no process is left, or the monotonic `deadline`; whether it is so."""
    while lock_file.look(instance).held or processes.find(instance):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True

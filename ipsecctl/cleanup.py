"""What a stop does when there is no supervisor to do it: a list of steps that may be taken again and again.

Each step looks for what there is, and says what it found. None needs anything that another one left.
"""

import os
import signal
import time
from pathlib import Path

import psutil

from ipc.links import LINKS, socket_path
from ipc.roles import SUPERVISOR_NAME, Role
from ipc.status_socket import status_socket_path
from ipsecctl import lock_file, processes, saved, secure_mode
from ipsecctl.modules import ModuleFailed, run_module
from ipsecctl.processes import Process, neighbour

GRACE_S = 2.0
SUPERVISOR_GRACE_S = 12.0
"""It stops its roles in order, each in its time."""
CLEANER = "kernel_agent.clean"
CLEAN_WITHIN_S = 1800.0
"""Longer than it takes to remove a hundred thousand rules from a busy machine."""
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def clean_up(instance: str) -> tuple[str, ...]:
    """Ends the instance's processes and removes its kernel objects and files; a line for each thing found."""
    return (
        *end_processes(instance),
        *put_back_forwarding(instance),
        *clean_kernel(instance),
        *secure_mode.end_if_disabled(instance),
        *remove_files(instance),
    )


def end_processes(instance: str) -> tuple[str, ...]:
    """Ends every process of `instance`, the supervisor first: it ends the others, or would start them again."""
    lines = []
    for is_supervisor, grace_s in ((True, SUPERVISOR_GRACE_S), (False, GRACE_S)):
        for process in processes.find(instance):
            if (process.role is Role.SUPERVISOR) is is_supervisor:
                _wake(process, instance)
                lines.append(processes.end(process, instance, grace_s))
    return tuple(lines)


def unlocked_supervisor(instance: str) -> Process | None:
    """A supervisor that once had the lock; for when nobody holds it. One that is about to take it is none."""
    for process in processes.find(instance):
        if process.role is Role.SUPERVISOR and _name_of(process) == SUPERVISOR_NAME:
            return process
    return None


def end_orphans(instance: str) -> tuple[str, ...]:
    """Ends the roles of `instance` that outlived their supervisor; for when there is none."""
    orphans = [process for process in processes.find(instance) if process.role is not Role.SUPERVISOR]
    return tuple(processes.end(process, instance, GRACE_S) for process in orphans)


def put_back_forwarding(instance: str) -> tuple[str, ...]:
    """Makes net.ipv4.ip_forward what it was before the instance set it."""
    information = saved.read(instance)
    if not information.here or not information.ip_forward_before:
        return ()
    before = information.ip_forward_before
    if IP_FORWARD.read_text().strip() == before:
        return ()
    try:
        IP_FORWARD.write_text(before)
    except OSError as error:
        return (f"ip_forward can't be put back: {error.strerror}",)
    return (f"ip_forward is {before} again",)


def clean_kernel(instance: str) -> tuple[str, ...]:
    """Removes kernel objects that bear our tag, unless they are another instance's."""
    information, other = saved.read(instance), neighbour(instance)
    if other:
        return (f"the kernel objects of this network namespace stay: they are those of {other}",)
    if information.elsewhere:
        return ("the instance ran in another network namespace: kernel objects are not looked for in this one",)
    try:
        removed = run_module(CLEANER, within_s=CLEAN_WITHIN_S)
    except ModuleFailed as error:
        return (f"kernel objects may be left: {error}",)
    return tuple(f"kernel: {line}" for line in removed.splitlines() if line.strip())


def remove_files(instance: str) -> tuple[str, ...]:
    """Removes what a supervisor that died left; not while a lock is held."""
    danger = saved.unsafe(instance)
    if danger:
        return (f"{danger}: nothing in it is touched",)
    if lock_file.look(instance).held:
        return (f"the lock of {instance} is held: its files stay",)
    sockets = (*(socket_path(instance, link) for link in LINKS), status_socket_path(instance))
    names = (*sockets, f"{instance}/state.json", f"{instance}/.state.json", f"{instance}/ipsecd.lock")
    return tuple(line for path in names if (line := _remove(path)))


def wait_until_gone(process: Process | None, instance: str, deadline: float) -> bool:
    """Waits until the lock is free and `process` is gone, or the monotonic `deadline`; whether it is so."""
    while lock_file.look(instance).held or (process is not None and process in processes.find(instance)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _wake(process: Process, instance: str) -> None:
    """A process that was stopped (SIGSTOP) hears SIGTERM only when it goes on."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if processes.identify(process.pid, instance) == process:
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _name_of(process: Process) -> str:
    try:
        return str(psutil.Process(process.pid).name())
    except psutil.Error:
        return ""


def _remove(path: str) -> str:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return ""
    except IsADirectoryError:
        return _remove_directory(path)
    except OSError as error:
        return f"{path} could not be removed: {error.strerror}"
    return f"removed {path}"


def _remove_directory(path: str) -> str:
    """Somebody put a directory where a file of ours should be: an empty one goes."""
    try:
        os.rmdir(path)
    except OSError as error:
        return f"{path} is a directory, and could not be removed: {error.strerror}"
    return f"removed the directory {path}"

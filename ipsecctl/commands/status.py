"""`ipsecctl status`: what the supervisor says, and what can be seen without it.

The supervisor is asked only if its lock is held, and for one second only; the processes of the instance are looked
for in any case, so that one which belongs to no supervisor is found. Nothing here loads ZeroMQ or the messages: a
status of a healthy instance should not cost more than the interpreter itself.
"""

import argparse
import json
from typing import Any

from ipc import status_socket
from ipsecctl import exit_codes, findings, kernel_objects, lock_file, processes, saved_state
from ipsecctl.lock_file import LockState
from ipsecctl.report import Report, parse, render
from ipsecctl.saved_state import SavedState

ANSWER_WITHIN_S = 1.0
LSB_RUNNING, LSB_DEAD_WITH_STATE, LSB_DEAD_WITH_LOCK, LSB_STOPPED = 0, 1, 2, 3
"""The status codes of the Linux Standard Base, "Init Script Actions"."""


def run(options: argparse.Namespace) -> int:
    """Says how the instance is; 1 if anything is strange. With --lsb the code is that of an LSB init script."""
    lock, saved = lock_file.look(options.instance), saved_state.read(options.instance)
    report = observe(options.instance, lock, saved)
    print(json.dumps(report, default=vars, indent=2) if options.json else "\n".join(render(report)))
    if options.lsb:
        return lsb_code(lock, saved)
    return exit_codes.STRANGE if report.findings else exit_codes.OK


def lsb_code(lock: LockState, saved: SavedState) -> int:
    """0 it runs; 1 it is dead and has left its saved information, 2 its lock only; 3 it does not run."""
    if lock.held:
        return LSB_RUNNING
    if saved.exists:
        return LSB_DEAD_WITH_STATE
    return LSB_DEAD_WITH_LOCK if lock.exists else LSB_STOPPED


def observe(instance: str, lock: LockState, saved: SavedState) -> Report:
    """The whole status, whether or not there is anybody to tell it."""
    report = _ask(instance) if lock.held else None
    if report is not None:
        found = processes.find(instance, processes.namespace_of(report.pid))
        report.findings += findings.of_answering(report, found)
        return report
    report = _empty(instance, lock)
    namespace = (lock.held and processes.namespace_of(lock.pid)) or saved.network_namespace
    found = processes.find(instance, namespace)
    report.processes = [seen for one in found if (seen := findings.seen(one)) is not None]
    objects = _kernel_objects(namespace)
    report.kernel_objects = [_kind(line) for line in objects.lines]
    if lock.held:
        report.findings += findings.of_silent(lock, saved, found, ANSWER_WITHIN_S)
    else:
        report.findings += findings.of_stopped(lock, saved, found, objects)
    return report


def _ask(instance: str) -> Report | None:
    try:
        return parse(status_socket.ask(instance, ANSWER_WITHIN_S))
    except status_socket.NoStatus:
        return None


def _empty(instance: str, lock: LockState) -> Report:
    """The status of which only the outside is known."""
    # Here, not above: a healthy instance is reported without it.
    from ipc.status import Status

    phase = "unknown" if lock.held else "stopped"
    pid = lock.pid if lock.held else 0
    return parse(Status(running=lock.held, phase=phase, mode="none", instance=instance, pid=pid).to_json())


def _kernel_objects(namespace: int) -> kernel_objects.Counted:
    if namespace not in (0, processes.namespace_of("self")):
        return kernel_objects.Counted(lines=(), error="they are in another network namespace")
    return kernel_objects.count()


def _kind(line: str) -> Any:
    count, _, kind = line.partition(" ")
    return parse(json.dumps({"kind": kind, "count": int(count)}))

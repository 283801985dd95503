"""`ipsecctl status`: what the supervisor says, and what can be seen without it.

The supervisor is asked only if its lock is held, and for one second only; the processes of the instance are looked
for in any case, so that one which belongs to no supervisor is found. Nothing here loads ZeroMQ or the messages: a
status of a healthy instance should not cost more than the interpreter itself.
"""

import argparse
import json
import os
import time

from ipc import status_socket
from ipc.patience import patient
from ipsecctl import exit_codes, findings, lock_file
from ipsecctl.lock_file import LockState
from ipsecctl.report import Report, parse, render

ANSWER_WITHIN_S = patient(1.0)
SEEN_WITHIN_S = patient(1.8)
"""All that can be seen without an answer, the wait for one included."""
STATE_NAME = "state.json"
LSB_RUNNING, LSB_DEAD_WITH_STATE, LSB_DEAD_WITH_LOCK, LSB_STOPPED = 0, 1, 2, 3
"""The status codes of the Linux Standard Base, "Init Script Actions"."""


def run(options: argparse.Namespace) -> int:
    """Says how the instance is; 1 if anything is strange. With --lsb the code is that of an LSB init script."""
    lock = lock_file.look(options.instance)
    report = observe(options.instance, lock)
    print(json.dumps(report, default=vars, indent=2) if options.json else "\n".join(render(report)))
    if options.lsb:
        return lsb_code(lock, os.path.lexists(f"{options.instance}/{STATE_NAME}"))
    return exit_codes.STRANGE if report.findings else exit_codes.OK


def lsb_code(lock: LockState, state_left: bool) -> int:
    """0 it runs; 1 it is dead and has left its saved information, 2 its lock only; 3 it does not run."""
    if lock.held:
        return LSB_RUNNING
    if state_left:
        return LSB_DEAD_WITH_STATE
    return LSB_DEAD_WITH_LOCK if lock.exists else LSB_STOPPED


def observe(instance: str, lock: LockState) -> Report:
    """The whole status, whether or not there is anybody to tell it."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    if lock.held:
        try:
            report = parse(status_socket.ask(instance, ANSWER_WITHIN_S))
        except status_socket.NoStatus:
            return _observe_from_outside(instance, lock, deadline)
        report.findings += findings.of_answering(report)
        return report
    return _observe_from_outside(instance, lock, deadline)


def _observe_from_outside(instance: str, lock: LockState, deadline: float) -> Report:
    # Here, not above: an instance that answers is reported without it.
    from ipsecctl import outside

    return outside.observe(instance, lock, deadline, ANSWER_WITHIN_S)

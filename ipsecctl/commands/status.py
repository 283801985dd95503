"""`ipsecctl status`: what the supervisor says, and what can be seen without it.

The supervisor is asked only if its lock is held, and for two seconds only; the processes of the instance are looked
for in any case, so that one which belongs to no supervisor is found.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any

from ipsecctl import exit_codes, lock_file, processes
from ipsecctl.errors import NoAnswer
from ipsecctl.lock_file import LockState
from ipsecctl.processes import Process
from ipsecctl.report import Report, parse, render, render_findings

ANSWER_WITHIN_S = 2.0


def run(options: argparse.Namespace) -> int:
    """Says how the instance is; 1 if anything is strange."""
    lock = lock_file.look(options.instance)
    report = _ask(options.instance) if lock.held else None
    found = processes.find(options.instance)
    findings = list(report.findings) if report is not None else []
    findings += _own_findings(lock, report, found)
    if options.json:
        print(_as_json(options.instance, lock, report, found, findings))
    else:
        _print(lock, report, found, findings)
    return exit_codes.STRANGE if findings else exit_codes.OK


def _ask(instance: str) -> Report | None:
    # Here, not above: a stopped instance is reported without the time that ZeroMQ takes to load.
    from ipc.messages import StatusAnswer, StatusQuestion
    from ipsecctl.client import ask

    try:
        return parse(ask(instance, StatusQuestion(), StatusAnswer, ANSWER_WITHIN_S).json)
    except NoAnswer:
        return None


def _own_findings(lock: LockState, report: Report | None, found: tuple[Process, ...]) -> list[Any]:
    """What is strange from outside: silence, and processes that belong to no supervisor."""
    if report is not None:
        known = {(role.pid, role.start_time) for role in report.roles} | {(report.pid, report.start_time)}
        strangers = [process for process in found if (process.pid, process.start_time) not in known]
        return [_finding("illicit", f"{one} is no process of the supervisor, pid {report.pid}") for one in strangers]
    if lock.held:
        sentence = f"the supervisor (pid {lock.pid}) holds {lock.path} and did not answer within {ANSWER_WITHIN_S:g} s"
        return [_finding("no-answer", sentence)]
    findings = [_finding("orphaned", f"{one} runs, and no supervisor holds {lock.path}") for one in found]
    if lock.exists:
        sentence = f"{lock.path} was left by pid {lock.pid}, which is gone; ipsecctl stop cleans up"
        findings.append(_finding("stale-lock", sentence))
    return findings


def _finding(code: str, sentence: str) -> Any:
    return SimpleNamespace(code=code, sentence=sentence)


def _print(lock: LockState, report: Report | None, found: tuple[Process, ...], findings: list[Any]) -> None:
    if report is not None:
        lines = render(report)
    else:
        lines = ["IPsec running" if lock.held else "IPsec stopped"]
        lines += [f"{process.role.value} pid {process.pid}" for process in found]
    if findings:
        lines += ["", *render_findings(findings)]
    print("\n".join(lines))


def _as_json(
    instance: str, lock: LockState, report: Report | None, found: tuple[Process, ...], findings: list[Any]
) -> str:
    whole = report if report is not None else SimpleNamespace(format=1, running=lock.held, instance=instance)
    whole.findings = findings
    whole.processes = [SimpleNamespace(role=process.role.value, pid=process.pid) for process in found]
    return json.dumps(whole, default=vars)

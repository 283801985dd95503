"""The status as text. A report is the supervisor's JSON with its objects as namespaces."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ipsecctl.output import BOLD, GREEN, RED, capabilities, coloured, count, duration, size, table

Report = Any
"""SimpleNamespaces as the JSON has them; what its fields mean is declared in `ipc.status`."""

SECURE_OUTSIDE = "mode       secure: the kernel drops everything that a policy in it does not allow"
SELECTORS_SHOWN = 2
LONGEST_LIST = 50
"""Rules without an SA: a large policy may have thousands; the JSON has them all."""


def parse(text: str) -> Report:
    """The status, from its JSON."""
    return json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))


def blank(instance: str, *, running: bool, pid: int) -> Report:
    """The status of an instance of which nothing else is known: as `ipc.status.Status` has it, which loads slowly."""
    return SimpleNamespace(
        format=2,
        running=running,
        phase="unknown" if running else "stopped",
        mode="none",
        instance=instance,
        pid=pid,
        start_time=0.0,
        up_s=0.0,
        policy=None,
        data_path=None,
        roles=[],
        tunnels=[],
        down=[],
        stored_ike_sas=0,
        refused_messages=0,
        findings=[],
        processes=[],
        kernel_objects=[],
    )


def render(report: Report) -> list[str]:
    """The lines of a status. The first two are those of ipsec_setup(8)."""
    lines = [coloured("IPsec running", GREEN) if report.running else "IPsec stopped"]
    workers = [*report.roles, *report.processes]
    lines += [f"{one.role} pid {one.pid}" for one in workers if one.role == "ike_worker" and one.pid]
    if report.policy is not None and report.policy.backup_reason:
        lines.append(coloured(f"running on backup policy {report.policy.path}", RED))
    if report.up_s:
        lines += ["", *_instance(report), "", *_roles(report.roles), "", *_tunnels(report.tunnels)]
        lines += _down(report.down)
    else:
        lines += ["", SECURE_OUTSIDE] if report.mode == "secure" else []
        lines += ["", *_processes(report.processes)] if report.processes else []
    if report.kernel_objects:
        counted = ", ".join(f"{one.count} {one.kind}" for one in report.kernel_objects)
        lines += ["", f"kernel     {counted}"]
    if report.findings:
        lines += ["", *(f"{coloured(finding.code, RED)}: {finding.sentence}" for finding in report.findings)]
    return lines


def _instance(report: Report) -> list[str]:
    lines = [
        f"instance   {report.instance}, supervisor pid {report.pid}, up {duration(report.up_s)}",
        f"mode       {report.mode}",
    ]
    if report.policy is not None:
        policy = report.policy
        # What waits to be confirmed has no number yet.
        number = f"generation {policy.history}, " if policy.history and not policy.confirm_within_s else ""
        lines.append(
            f"policy     {policy.path}, {number}{count(policy.rules, 'rule')}, "
            f"in force for {duration(policy.age_s)}, sha256 {policy.sha256[:16]}"
        )
        if policy.confirm_within_s:
            lines.append(f"           to be confirmed within {duration(policy.confirm_within_s)}: ipsecctl confirm")
        lines += [f"           warning: {warning}" for warning in policy.warnings]
    if report.data_path is not None:
        lines.append(f"data path  {report.data_path.kind} ({report.data_path.why})")
    return lines


def _processes(seen: list[Any]) -> list[str]:
    header = ("role", "pid", "uid", "state", "up", "command")
    rows = [(one.role, str(one.pid), str(one.uid), one.state, duration(one.age_s), one.command) for one in seen]
    return _headed(table(header, rows))


def _down(rules: list[Any]) -> list[str]:
    if not rules:
        return []
    shown = [(one.rule, one.peer, one.start, one.reason) for one in rules[:LONGEST_LIST]]
    lines = ["", *_headed(table(("rule without SA", "peer", "start", "reason"), shown))]
    return lines if len(rules) <= LONGEST_LIST else [*lines, f"and {len(rules) - LONGEST_LIST} more"]


def _roles(roles: list[Any]) -> list[str]:
    rows = []
    for role in roles:
        process = role.process
        rows.append(
            (
                role.role,
                str(role.pid or "-"),
                str(process.uid) if process else "-",
                capabilities(process.effective_capabilities) if process else "-",
                role.state,
                duration(role.up_s),
                str(role.restarts),
                f"{process.cpu_s:.2f}s" if process else "-",
                size(process.rss_bytes) if process else "-",
                role.last_exit or "-",
            )
        )
    header = ("role", "pid", "uid", "capabilities", "state", "up", "restarts", "cpu", "memory", "last exit")
    return _headed(table(header, rows))


def _tunnels(tunnels: list[Any]) -> list[str]:
    if not tunnels:
        return ["no tunnels"]
    rows = [
        (tunnel.peer, tunnel.state, tunnel.local, tunnel.remote, tunnel.algorithms, duration(tunnel.age_s))
        for tunnel in tunnels
    ]
    lines = _headed(table(("peer", "state", "local", "remote", "algorithms", "age"), rows))
    children = [
        (
            tunnel.peer,
            child.rule,
            child.mode,
            _first(child.local),
            _first(child.remote),
            child.spi_in,
            child.spi_out,
            child.algorithms,
            duration(child.age_s),
        )
        for tunnel in tunnels
        for child in tunnel.children
    ]
    if children:
        header = ("peer", "rule", "mode", "local", "remote", "spi in", "spi out", "algorithms", "age")
        lines += ["", *_headed(table(header, children))]
    return lines


def _first(selectors: Sequence[str]) -> str:
    """As many as fit on a line beside others; `ipsecctl list` has them all."""
    left = len(selectors) - SELECTORS_SHOWN
    shown = ", ".join(selectors[:SELECTORS_SHOWN])
    return f"{shown} and {left} more" if left > 0 else shown


def _headed(lines: list[str]) -> list[str]:
    return [coloured(lines[0], BOLD), *lines[1:]]

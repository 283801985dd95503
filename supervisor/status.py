"""The status of an instance as JSON: what the supervisor holds, and what the kernel reports of its children.

No role is asked, so a role that hangs can't make status hang. Each finding has a reason code that never changes its
meaning; an instance without findings is well.
"""

from collections.abc import Iterable
from pathlib import Path

import psutil

from ipc import messages as m
from ipc.process import CAPABILITIES
from ipc.roles import uid_of
from ipc.status import (
    ChildSaReport,
    DataPathStatus,
    Finding,
    PolicyStatus,
    ProcessFacts,
    RoleStatus,
    TunnelReport,
)
from ipc.types import DataPathKind
from supervisor.backoff import FORGIVEN_AFTER_S
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.data_path import DataPathKeeper
from supervisor.generations import Generations
from supervisor.policy import PolicyKeeper, first_line
from supervisor.watchdog import UNRESPONSIVE_S

MANUAL = "manual"
"""The state of SAs with fixed keys."""


def process_facts(pid: int) -> ProcessFacts | None:
    """What the kernel says of `pid`; None if there is no such process (any more)."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        process = psutil.Process(pid)
        times = process.cpu_times()
        return ProcessFacts(
            uid=int(fields["Uid"].split()[1]),
            effective_capabilities=int(fields["CapEff"], 16),
            no_new_privs=fields["NoNewPrivs"].strip() == "1",
            cpu_s=round(times.user + times.system, 2),
            rss_bytes=process.memory_info().rss,
            stopped=fields["State"].split()[0] in ("T", "t"),
        )
    except (OSError, psutil.NoSuchProcess):
        return None


def role_status(child: Child, refused_messages: int, now: float, silent_s: float = 0.0) -> RoleStatus:
    """The status of one child; `silent_s` since the oldest question that it owes an answer."""
    process = process_facts(child.pid) if child.alive else None
    mute = silent_s >= UNRESPONSIVE_S or (process is not None and process.stopped)
    return RoleStatus(
        role=child.name,
        state="unresponsive" if child.state is ChildState.UP and mute else child.state.value,
        pid=child.pid,
        start_time=child.start_time,
        up_s=round(now - child.started_at, 1) if child.alive else 0.0,
        restarts=child.restarts,
        last_exit=child.last_exit,
        refused_messages=refused_messages,
        process=process,
        silent_s=round(silent_s, 1),
    )


def role_findings(child: Child, role: RoleStatus) -> Iterable[Finding]:
    """What is strange about one role."""
    name = role.role
    if child.state is not ChildState.UP:
        because = f"; the last process ended: {role.last_exit}" if role.last_exit else ""
        code = "role-not-ready" if child.alive else "dead-process"
        yield Finding(code=code, sentence=f"{name} is {role.state}{because}")
    if child.failed:
        yield Finding(code="role-failed", sentence=f"{name} dies again and again; the last time: {role.last_exit}")
    elif child.state is ChildState.UP and role.restarts and role.up_s < FORGIVEN_AFTER_S:
        sentence = f"{name} was started again {role.up_s:.0f} s ago; the last process ended: {role.last_exit}"
        yield Finding(code="role-restarted", sentence=sentence)
    if role.refused_messages:
        yield Finding(code="messages-refused", sentence=f"{name} has refused {role.refused_messages} messages")
    if role.process is None or child.state is not ChildState.UP:
        return
    if role.process.stopped:
        yield Finding(code="unresponsive", sentence=f"{name} (pid {role.pid}) is stopped by a signal")
    elif role.silent_s >= UNRESPONSIVE_S:
        sentence = f"{name} (pid {role.pid}) has not answered its health question for {role.silent_s:.0f} s"
        yield Finding(code="unresponsive", sentence=sentence)
    if role.process.uid != uid_of(child.row.role):
        yield Finding(code="role-wrong-user", sentence=f"{name} runs as uid {role.process.uid}")
    allowed = sum(1 << number for number in CAPABILITIES[child.row.role])
    if role.process.effective_capabilities & ~allowed:
        held = role.process.effective_capabilities
        yield Finding(
            code="role-too-privileged", sentence=f"{name} has capabilities {held:#x}, allowed are {allowed:#x}"
        )
    if not role.process.no_new_privs:
        yield Finding(code="role-too-privileged", sentence=f"{name} runs without no_new_privs")


def policy_findings(keeper: PolicyKeeper, data_path: DataPathKeeper) -> Iterable[Finding]:
    """What is strange about the policy."""
    if keeper.refused:
        sentence = f"the policy file is not what runs; what ran before goes on: {first_line(keeper.refused)}"
        yield Finding(code="policy-refused", sentence=sentence)
    if keeper.loader_lacks_policy:
        sentence = "the policy loader could not be given the policy in force; peers can't be authenticated"
        yield Finding(code="policy-not-restored", sentence=sentence)
    if data_path.failure:
        yield Finding(code="data-path-failed", sentence=data_path.failure)


def backup_findings(keeper: PolicyKeeper, generations: Generations) -> Iterable[Finding]:
    """What is strange about the policies that are kept."""
    policy = keeper.in_force
    if policy is not None and policy.backup_reason:
        sentence = f"running on backup policy {policy.file.path}: {policy.backup_reason}"
        yield Finding(code="on-backup-policy", sentence=sentence)
    if generations.problem:
        yield Finding(code="backup-not-kept", sentence=generations.problem)


def policy_status(
    keeper: PolicyKeeper, now: float, history: int = 0, confirm_within_s: float = 0.0
) -> PolicyStatus | None:
    """The status of the policy in force; None before there is one."""
    policy = keeper.in_force
    if policy is None or policy.parsed is None:
        return None
    return PolicyStatus(
        path=policy.file.path,
        sha256=policy.parsed.sha256.hex(),
        generation=policy.generation,
        rules=policy.parsed.rules,
        age_s=round(now - policy.enforced_at, 1),
        warnings=policy.parsed.warnings,
        refused=keeper.refused,
        backup_reason=policy.backup_reason,
        history=history,
        confirm_within_s=round(confirm_within_s, 1),
    )


def data_path_status(data_path: DataPathKeeper) -> DataPathStatus | None:
    """The status of the data path; None before it is chosen."""
    if data_path.kind is None:
        return None
    return DataPathStatus(kind=DataPathKind(data_path.kind).name.lower(), why=data_path.why)


def tunnel_report(tunnel: m.IkeSaStatus, now: float) -> TunnelReport:
    """An IKE SA for people."""
    return TunnelReport(
        peer=tunnel.peer,
        state=tunnel.state,
        initiator=tunnel.initiator,
        spi_i=tunnel.spi_i.hex(),
        spi_r=tunnel.spi_r.hex(),
        local=tunnel.local,
        remote=tunnel.remote,
        algorithms=tunnel.algorithms,
        age_s=_age(tunnel.established_at, now),
        children=tuple(_child_report(child, _age(child.established_at, now)) for child in tunnel.children),
    )


def manual_reports(keeper: PolicyKeeper, now: float) -> tuple[TunnelReport, ...]:
    """The SAs with fixed keys of the policy in force: tunnels too, with nobody who could say that they work."""
    policy = keeper.in_force
    if policy is None or policy.parsed is None:
        return ()
    return tuple(_manual_report(tunnel, _age(policy.enforced_at, now)) for tunnel in policy.parsed.manual)


def _manual_report(tunnel: m.ManualTunnel, age_s: float) -> TunnelReport:
    return TunnelReport(
        peer=tunnel.peer,
        state=MANUAL,
        initiator=False,
        spi_i="",
        spi_r="",
        local=str(tunnel.local_address),
        remote=str(tunnel.peer_address),
        algorithms="-",
        age_s=age_s,
        children=(_child_report(tunnel, age_s),),
    )


def _child_report(sa: m.ChildSaStatus | m.ManualTunnel, age_s: float) -> ChildSaReport:
    return ChildSaReport(
        rule=sa.rule,
        mode=sa.mode.name.lower(),
        spi_in=f"{sa.spi_in:08x}",
        spi_out=f"{sa.spi_out:08x}",
        algorithms=sa.algorithms,
        local=tuple(str(selector) for selector in sa.local),
        remote=tuple(str(selector) for selector in sa.remote),
        age_s=age_s,
    )


def _age(established_at: float, now: float) -> float:
    return round(max(0.0, now - established_at), 1) if established_at else 0.0

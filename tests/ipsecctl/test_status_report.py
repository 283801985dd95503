"""The status as text, and the exit codes of --lsb."""

import pytest

from ipc.status import (
    ChildSaReport,
    DownRule,
    Finding,
    KernelObjects,
    PolicyStatus,
    RoleStatus,
    SeenProcess,
    Status,
    TunnelReport,
)
from ipsecctl.commands.status import lsb_code
from ipsecctl.lock_file import LockState
from ipsecctl.report import LONGEST_LIST, blank, parse, render


def rendered(status: Status) -> list[str]:
    return render(parse(status.to_json()))


def role(name: str, state: str = "up") -> RoleStatus:
    return RoleStatus(
        role=name,
        state=state,
        pid=7,
        start_time=1.0,
        up_s=61.0,
        restarts=2,
        last_exit="",
        refused_messages=0,
        process=None,
    )


def running(**changes: object) -> Status:
    whole: dict[str, object] = {"running": True, "phase": "running", "instance": "/run/a", "pid": 5, "up_s": 3.0}
    return Status(**{**whole, **changes})  # type: ignore[arg-type]


def test_o10_the_first_lines_are_those_of_the_manual() -> None:
    assert rendered(running(roles=(role("ike_worker"),)))[:2] == ["IPsec running", "ike_worker pid 7"]
    assert rendered(Status(running=False, phase="stopped", instance="/run/a")) == ["IPsec stopped"]


def test_o10_the_policy_is_told_with_generation_hash_and_age() -> None:
    policy = PolicyStatus(
        path="/etc/ipsec.spd",
        sha256="ab" * 32,
        generation=7,
        rules=9,
        age_s=90.0,
        warnings=("w",),
        refused=(),
        history=4,
    )
    lines = rendered(running(policy=policy))
    told = "policy     /etc/ipsec.spd, generation 4, 9 rules, in force for 1m 30s, sha256 abababababababab"
    assert lines[lines.index(told) + 1] == "           warning: w"
    assert "mode       normal" in lines


def test_o10_a_long_list_of_rules_without_an_sa_is_cut_in_text_only() -> None:
    down = tuple(DownRule(rule=f"r{n}", peer="p", start="on-demand", reason="why") for n in range(LONGEST_LIST + 3))
    lines = rendered(running(down=down))
    assert lines[-1] == "and 3 more"
    assert [line.split() for line in lines if line.startswith("r49")] == [["r49", "p", "on-demand", "why"]]


def test_o10_of_many_traffic_selectors_the_text_shows_the_first() -> None:
    child = ChildSaReport(
        rule="lan",
        mode="tunnel",
        spi_in="00001001",
        spi_out="00002002",
        algorithms="aes256gcm16",
        local=("10.1.0.1",),
        remote=tuple(f"10.2.0.1 proto 6 port {port}-{port}" for port in (22, 80, 443, 8080)),
        age_s=3.0,
    )
    ends = {"spi_i": "1", "spi_r": "2", "local": "10.9.0.1:500", "remote": "10.9.0.2:500"}
    tunnel = TunnelReport(
        peer="p", state="established", initiator=True, algorithms="a", age_s=4.0, children=(child,), **ends
    )
    (line,) = (line for line in rendered(running(tunnels=(tunnel,))) if "00001001" in line)
    assert "10.1.0.1  10.2.0.1 proto 6 port 22-22, 10.2.0.1 proto 6 port 80-80 and 2 more  00001001" in line


def test_o12_findings_stand_at_the_end_a_line_each() -> None:
    findings = (Finding(code="stale-lock", sentence="it is held by nobody"), Finding(code="drift", sentence="t"))
    assert rendered(running(findings=findings))[-2:] == ["stale-lock: it is held by nobody", "drift: t"]


def test_o12_without_a_supervisor_what_is_seen_is_listed() -> None:
    seen = SeenProcess(
        role="ike_worker", pid=9, start_time=1.0, uid=60701, age_s=5.0, state="sleeping", command="python -m ike_worker"
    )
    objects = (KernelObjects(kind="policies", count=6), KernelObjects(kind="SAs", count=2))
    lines = rendered(
        Status(running=True, phase="unknown", instance="/run/a", processes=(seen,), kernel_objects=objects)
    )
    assert lines == [
        "IPsec running",
        "ike_worker pid 9",
        "",
        "role        pid  uid    state     up  command",
        "ike_worker  9    60701  sleeping  5s  python -m ike_worker",
        "",
        "kernel     6 policies, 2 SAs",
    ]


@pytest.mark.parametrize(
    ("held", "exists", "state_left", "code"),
    [
        (True, True, True, 0),
        (True, True, False, 0),
        (False, True, True, 1),
        (False, False, True, 1),
        (False, True, False, 2),
        (False, False, False, 3),
    ],
)
def test_o11_lsb_codes(held: bool, exists: bool, state_left: bool, code: int) -> None:
    assert lsb_code(LockState(path="p", exists=exists, held=held, pid=0), state_left) == code


def test_the_blank_report_is_a_status_of_which_nothing_is_known() -> None:
    for running, phase, pid in ((True, "unknown", 7), (False, "stopped", 0)):
        status = Status(running=running, phase=phase, mode="none", instance="/run/a", pid=pid)
        assert blank("/run/a", running=running, pid=pid) == parse(status.to_json())

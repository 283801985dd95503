"""What the doctor says of a machine, and of this one."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsecctl import checkup
from ipsecctl.checkup import (
    Abilities,
    Ability,
    Check,
    Verdict,
    kernel_checks,
    kernel_release,
    python_packages,
    spd_permissions,
)
from ipsecctl.commands.doctor import render
from tests.lab.instance import IPSECCTL, NetworkState
from tests.lab.namespaces import Namespace

EVERYTHING = ("namespaces", "xfrm", "kernel-esp", "userspace-esp", "nftables", "tun", "secure-mode", "unmatched-log")


def verdicts(*present: str) -> dict[str, str]:
    """The verdict on each thing where only `present` are there."""
    found = {name: Ability(present=name in present, detail="d") for name in EVERYTHING}
    return {check.name: check.verdict.value for check in kernel_checks(Abilities(by_name=found))}


def test_a_machine_with_everything_lacks_nothing() -> None:
    assert set(verdicts(*EVERYTHING).values()) == {"ok"}


def test_either_data_path_is_enough() -> None:
    without_kernel_esp = verdicts(*(name for name in EVERYTHING if name != "kernel-esp"))
    assert without_kernel_esp.pop("kernel ESP") == "note"
    assert set(without_kernel_esp.values()) == {"ok"}
    without_userspace = verdicts("namespaces", "xfrm", "kernel-esp")
    assert {without_userspace[name] for name in ("user-space ESP", "nftables", "TUN")} == {"note"}


@pytest.mark.parametrize("lacking", ["userspace-esp", "nftables", "tun"])
def test_without_kernel_esp_all_of_the_user_space_path_is_needed(lacking: str) -> None:
    there = [name for name in EVERYTHING if name not in (lacking, "kernel-esp")]
    assert list(verdicts(*there).values()).count("missing") == 2


def test_without_xfrm_nothing_works() -> None:
    assert verdicts(*(name for name in EVERYTHING if name != "xfrm"))["XFRM policies"] == "missing"


def test_what_could_not_be_tried_is_not_said_to_be_there() -> None:
    assert all(check.verdict is not Verdict.OK and check.remedy for check in kernel_checks(Abilities(by_name={})))


def test_that_the_prober_failed_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "PROBER", "kernel_agent.nothing_of_this_name")
    checks = kernel_checks(checkup.probe())
    assert {check.verdict for check in checks} <= {Verdict.NOTE, Verdict.MISSING}
    assert all("could not be tried" in one.found and "nothing_of_this_name" in one.found for one in checks)


@pytest.mark.parametrize(
    ("release", "verdict"),
    [("6.18.44-fc", Verdict.OK), ("5.4-rc1", Verdict.OK), ("5.3.18-59", Verdict.MISSING), ("4.19.0", Verdict.MISSING)],
)
def test_an_old_kernel_is_named(release: str, verdict: Verdict) -> None:
    check = kernel_release(release)
    assert (check.verdict, release in check.found) == (verdict, True)


def test_missing_packages_come_with_the_command_that_installs_them() -> None:
    check = python_packages(("pyzmq", "psutil"))
    assert (check.verdict, check.remedy) == (Verdict.MISSING, "pip install pyzmq psutil")


@pytest.mark.parametrize(("mode", "verdict"), [(0o600, "ok"), (0o400, "ok"), (0o640, "missing"), (0o604, "missing")])
def test_an_spd_that_others_can_read_is_named_with_its_remedy(tmp_path: Path, mode: int, verdict: str) -> None:
    path = tmp_path / "ipsec.spd"
    path.touch()
    path.chmod(mode)
    check = spd_permissions(str(path))
    if os.geteuid() == 0:
        assert check.verdict.value == verdict
    if verdict == "missing":
        assert f"chmod 0600 {path}" in check.remedy


def test_an_spd_that_is_a_link_or_not_there_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert spd_permissions(str(tmp_path / "link")).verdict is Verdict.MISSING
    assert spd_permissions(str(tmp_path / "none")).verdict is Verdict.NOTE


def test_a_uid_that_somebody_else_has_is_no_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkup.users().verdict is not Verdict.MISSING
    monkeypatch.setattr(checkup, "_user_exists", lambda _name: False)
    monkeypatch.setattr(checkup, "_user_name", lambda uid: "mallory" if uid == 60701 else "")
    check = checkup.users()
    assert (check.verdict, "60701 is mallory" in check.found) == (Verdict.MISSING, True)


def test_lines_are_aligned_and_end_with_the_remedy() -> None:
    lines = render(
        (
            Check(name="kernel", verdict=Verdict.OK, found="Linux 6"),
            Check(name="TUN", verdict=Verdict.MISSING, found="none", remedy="load tun"),
        )
    )
    assert lines == ["ok       kernel  Linux 6", "missing  TUN     none; load tun"]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("doctor") as made:
        yield made


def doctor(namespace: Namespace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = namespace.command(str(IPSECCTL), "--instance", f"/run/ipsecd-{os.getpid()}-none", "doctor", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.root
def test_this_machine_is_told_what_it_can_do_and_is_left_as_it_was(namespace: Namespace) -> None:
    before = NetworkState.of(namespace)
    done = doctor(namespace)
    assert done.returncode == 0, done.stdout + done.stderr
    titles = ("kernel", "python packages", "XFRM policies", "kernel ESP", "user-space ESP", "nftables", "TUN", "users")
    for title in (*titles, "UDP 500, 4500", "policy file", "network namespaces"):
        assert [line for line in done.stdout.splitlines() if title in line], title
    assert NetworkState.of(namespace).since(before) == []


@pytest.mark.root
def test_a_port_that_somebody_has_is_named_with_its_holder(namespace: Namespace) -> None:
    with namespace.udp_socket("0.0.0.0", 4500) as taken:
        assert taken.type is socket.SOCK_DGRAM
        done = doctor(namespace, "--json")
    found = json.loads(done.stdout)
    (ports,) = (check for check in found["checks"] if check["name"].startswith("UDP"))
    assert (done.returncode, found["able"], ports["verdict"]) == (1, False, "missing")
    assert "4500 is held by" in ports["found"]
    assert f"(pid {os.getpid()})" in ports["found"]

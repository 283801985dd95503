"""Dropping privileges, in a child of its own each time: what /proc says afterwards, and that there is no way back."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipc import process
from ipc.privileges import CAP_NET_ADMIN
from ipc.process import CAPABILITIES, DESCRIPTORS_VARIABLE, inherited_descriptors, process_start_time
from ipc.roles import MODULES, Role, uid_of

pytestmark = pytest.mark.root
UID = 60701
TIMEOUT_S = 20.0

_PRELUDE = """
import os, sys, ctypes, resource, signal, socket, time
from ipc import privileges
libc = ctypes.CDLL(None, use_errno=True)
def drop(parent=None, capabilities=()):
    privileges.drop(uid=60701, gid=60701, capabilities=frozenset(capabilities), parent=parent or os.getppid())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended."""

    code: int
    output: str
    errors: str


def run_child(script: str) -> Ended:
    """Runs `script` as a child of this process."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return Ended(code=done.returncode, output=done.stdout, errors=done.stderr)


def status_of(text: str) -> dict[str, str]:
    """/proc/PID/status by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


PRINT_STATUS = "print(open('/proc/self/status').read())\n"


def test_uid_gid_groups_and_capabilities_are_gone() -> None:
    status = status_of(run_child("drop()\n" + PRINT_STATUS).output)
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"


def test_the_agent_keeps_one_capability_and_no_other() -> None:
    status = status_of(run_child("drop(capabilities=[privileges.CAP_NET_ADMIN])\n" + PRINT_STATUS).output)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << CAP_NET_ADMIN
    for name in ("CapInh", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name


def test_only_the_agent_has_any() -> None:
    assert {role for role, held in CAPABILITIES.items() if held} == {Role.KERNEL_AGENT}


@pytest.mark.parametrize(
    "attempt",
    [
        "os.setuid(0)",
        "os.setresuid(0, 0, 0)",
        "os.setgid(0)",
        "os.setgroups([0])",
        "os.chown('/proc/self', 0, 0)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
        "open('/etc/shadow').read()",
        "privileges._set_capabilities(privileges.Capabilities(effective=4096, permitted=4096, inheritable=0))",
        "os.kill(os.getppid(), 0)",
        "socket.socket().bind(('127.0.0.1', 500))",
        "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    ],
)
def test_there_is_no_way_back(attempt: str) -> None:
    ended = run_child(
        f"drop()\ntry:\n    {attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)\n"
    )
    assert ended.output.startswith("refused"), ended


def test_a_setuid_program_gives_nothing_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    copy = Path("/tmp") / f"ipsecd-setuid-{os.getpid()}"
    copy.write_bytes(Path("/usr/bin/id").read_bytes())
    copy.chmod(0o4755)
    try:
        ended = run_child(f"drop()\nos.execv({str(copy)!r}, ['id', '-u'])\n")
    finally:
        copy.unlink()
    assert ended.output.strip() == str(UID), ended


def test_it_is_not_dumpable_and_leaves_no_core() -> None:
    ended = run_child(
        "drop()\nprint(libc.prctl(3, 0, 0, 0, 0), os.stat('/proc/self/mem').st_uid, resource.getrlimit(4))\n"
    )
    assert ended.output.strip() == "0 0 (0, 0)"


def test_a_process_that_was_not_dropped_is_found_out() -> None:
    ended = run_child("privileges.verify(uid=0, gid=0, wanted=0)\n")
    assert ended.code != 0
    assert "PrivilegesKept" in ended.errors


@pytest.mark.parametrize(
    ("forgotten", "complaint"),
    [
        ("libc.prctl(38, 1, 0, 0, 0); libc.prctl(4, 1, 0, 0, 0)", "dumpable"),
        ("libc.prctl(4, 0, 0, 0, 0)", "no_new_privs is not set"),
    ],
    ids=["dumpable", "no_new_privs"],
)
def test_a_step_left_out_is_found_out(forgotten: str, complaint: str) -> None:
    steps = "os.setgroups([]); os.setresgid(60701, 60701, 60701); os.setresuid(60701, 60701, 60701)\n"
    ended = run_child(f"{steps}{forgotten}\nprivileges.verify(uid=60701, gid=60701, wanted=0)\n")
    assert ended.code != 0
    assert complaint in ended.errors


def test_a_process_whose_supervisor_is_another_does_not_go_on() -> None:
    ended = run_child("drop(parent=1 if os.getppid() != 1 else 2)\nprint('went on')\n")
    assert ended.code != 0
    assert "went on" not in ended.output
    assert "PrivilegesKept" in ended.errors


def test_it_dies_with_its_supervisor() -> None:
    middle = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _PRELUDE + "reader, writer = os.pipe()\n"
            "parent = os.getpid()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    drop(parent=parent)\n"
            "    os.write(writer, b'.')\n"
            "    time.sleep(60)\n"
            "os.read(reader, 1)\n"
            "print(child, flush=True)\n"
            "time.sleep(60)\n",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert middle.stdout is not None
    child = int(middle.stdout.readline())
    started = process_start_time(child)
    middle.kill()
    middle.wait(TIMEOUT_S)
    middle.stdout.close()
    deadline = time.monotonic() + 5.0
    while _lives(child, started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child, started)


def _lives(pid: int, started: float) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return process_start_time(pid) == started and state not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_start_time_is_the_same_each_time_and_tells_processes_apart() -> None:
    assert process_start_time(os.getpid()) == process_start_time(os.getpid())
    with pytest.raises(OSError):
        process_start_time(2**22 + 1)


def test_descriptors_are_handed_over_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESCRIPTORS_VARIABLE, "udp=5,link:loader-agent=7,tun=9")
    assert inherited_descriptors() == {"udp": 5, "link:loader-agent": 7, "tun": 9}
    monkeypatch.delenv(DESCRIPTORS_VARIABLE)
    assert inherited_descriptors() == {}


def test_every_role_runs_as_somebody_else() -> None:
    uids = [uid_of(role) for role in MODULES if role is not Role.SUPERVISOR]
    assert len(set(uids)) == len(uids)
    assert 0 not in uids
    assert uid_of(Role.SUPERVISOR) == uid_of(Role.IPSECCTL) == 0
    assert process.LISTENER_PREFIX == "link:"

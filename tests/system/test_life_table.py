"""The truth table of status, start and stop, run for real (rows O10-O18, O23-O25).

Every combination of
  saved information   none, saved
  lock                absent, stale (a file that nobody locks), held
  process             none; one: the instance; two: a second worker beside it; impostor: a process that is no ipsecd
                      has the pid that lock and saved information name, or holds the lock
  kernel objects      none, some (ours, left over), foreign (somebody else's; beside ours where an instance runs)
that can exist. `cannot_exist` says which can not, and why.
"""

import contextlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipc.roles import Role
from supervisor.lock import boot_id
from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import Namespace
from tests.lab.operator import BYPASS_SPD, add_foreign_objects, add_own_objects, operate
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
FINDING = re.compile(r"([a-z]+(?:-[a-z]+)*): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One combination."""

    saved: bool
    lock: str
    process: str
    kernel: str

    @property
    def runs(self) -> bool:
        """An instance runs, whatever its lock says."""
        return self.process in ("one", "two")

    def __str__(self) -> str:
        return f"{'saved' if self.saved else 'unsaved'}-{self.lock}-{self.process}-{self.kernel}"


def cannot_exist(row: Row) -> str:
    """Why there is no such row; empty if there is."""
    if row.lock == "held" and row.process == "none":
        return "a lock is held by a process, and goes with it"
    if row.process == "impostor" and row.lock == "absent" and not row.saved:
        return "nothing names the process, so it is like any other"
    if row.runs and row.kernel == "none":
        return "an instance that runs has objects in the kernel"
    return ""


ALL = [
    Row(saved=saved, lock=lock, process=process, kernel=kernel)
    for saved, lock, process, kernel in itertools.product(
        (False, True),
        ("absent", "stale", "held"),
        ("none", "one", "two", "impostor"),
        ("none", "some", "foreign"),
    )
]
ROWS = [row for row in ALL if not cannot_exist(row)]


class Scene:
    """A row brought about in a namespace of its own."""

    def __init__(self, namespace: Namespace, instance: Instance, row: Row) -> None:
        self.row = row
        self.instance = instance
        self.namespace = namespace
        self.others: list[subprocess.Popen[bytes]] = []
        self.lock = instance.directory / "ipsecd.lock"
        self.state = instance.directory / "state.json"
        self.pid = 0
        """Of the supervisor or the impostor."""
        instance.write_spd(BYPASS_SPD)
        if row.kernel == "foreign":
            add_foreign_objects(namespace)
        self.at_first = NetworkState.of(namespace)

    def build(self) -> None:
        """Brings it about."""
        if self.row.runs:
            self._run_instance()
            return
        for directory in (self.instance.directory, self.instance.directory / "links"):
            directory.mkdir(mode=0o711, exist_ok=True)
        if self.row.process == "impostor":
            self.pid = self._impostor()
        self.leave()

    def leave(self) -> None:
        """What an instance that died leaves: files, and objects in the kernel."""
        if self.row.kernel == "some":
            add_own_objects(self.namespace)
        if self.row.saved:
            self.state.write_text(json.dumps(self._named() | {"roles": []}))
        if self.row.lock == "stale":
            self.lock.write_text(json.dumps(self._named()))

    def _run_instance(self) -> None:
        said = operate(self.instance, "start", "--spd", str(self.instance.spd))
        assert said.code == 0, said.text
        supervisor = self.instance.role(Role.SUPERVISOR)
        assert supervisor is not None
        self.pid = supervisor.pid
        if self.row.process == "two":
            self._second_worker()
        content = self.lock.read_text()
        if self.row.lock != "held":
            self.lock.unlink()
        if self.row.lock == "stale":
            self.lock.write_text(content)
        if not self.row.saved:
            self.state.unlink()

    def _named(self) -> dict[str, object]:
        """What a supervisor that died, or whose pid the impostor has now, wrote down of itself."""
        return {
            "pid": self.pid or _dead_pid(),
            "start_time": 1.0,
            "boot_id": boot_id(),
            "spd_path": str(self.instance.spd),
            "data_path": "userspace",
            "ip_forward_before": "",
            "network_namespace": self.namespace.path.stat().st_ino,
        }

    def _impostor(self) -> int:
        command = ["sleep", "600"]
        if self.row.lock == "held":
            self.lock.write_text("")
            code = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(600)"
            command = [sys.executable, "-S", "-c", code, str(self.lock)]
        process = subprocess.Popen(self.namespace.command(*command))
        self.others.append(process)
        if self.row.lock == "held":
            inode = str(self.lock.stat().st_ino)
            wait_until("the lock is held", lambda: f":{inode} " in Path("/proc/locks").read_text())
            self.lock.write_text(json.dumps(self._named() | {"pid": process.pid}))
        return process.pid

    def _second_worker(self) -> None:
        package = self.instance.spd.parent / "fake" / "ike_worker"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("import time\nprint(flush=True)\ntime.sleep(600)\n")
        process = subprocess.Popen(
            self.namespace.command(
                *("env", f"PYTHONPATH={package.parent}", sys.executable, "-P", "-m", "ike_worker"),
                *("--instance", str(self.instance.directory), "--supervisor", "1"),
            ),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self.others.append(process)

    def close(self) -> None:
        for process in self.others:
            process.kill()
            process.communicate()


def _dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def scene(row: Row) -> Iterator[Scene]:
    with Namespace("table") as namespace, Instance(namespace) as instance:
        made = Scene(namespace, instance, row)
        with contextlib.closing(made):
            made.build()
            yield made


def expected_findings(row: Row) -> set[str]:
    """The reason codes that status gives."""
    if row.lock == "held":
        if row.process == "impostor":
            return {"lock-mismatch"}
        return {"illicit-process"} if row.process == "two" else set()
    codes = {"orphaned-process"} if row.runs else set()
    codes |= {"stale-lock"} if row.lock == "stale" else {"stale-state"} if row.saved else set()
    if row.runs or row.kernel == "some":
        codes.add("stale-object")
    return codes


def assert_status(scene: Scene) -> None:
    row = scene.row
    said = operate(scene.instance, "status")
    assert said.lines[0] == ("IPsec running" if row.lock == "held" else "IPsec stopped")
    codes = expected_findings(row)
    assert said.code == (1 if codes else 0), said.text
    assert {match[1] for line in said.lines if (match := FINDING.match(line))} == codes, said.text
    if row.process == "two":
        offender = next(one for one in scene.instance.roles() if one.pid == worker_of(scene))
        assert f"(pid {offender.pid})" in said.text


def worker_of(scene: Scene) -> int:
    """The pid of the second worker."""
    return max(one.pid for one in scene.instance.roles() if one.role is Role.IKE_WORKER)


def assert_start(scene: Scene) -> bool:
    """Starts; whether that changed anything."""
    row, instance = scene.row, scene.instance
    before, files = instance.roles(), instance.files()
    said = operate(instance, "start", "--spd", str(instance.spd))
    if row.lock == "held" and row.runs:
        assert (said.code, said.text) == (0, f"ipsecd is already running (pid {scene.pid})\n")
    elif row.lock == "held":
        assert said.code == 1
        assert f"{scene.lock} is held, but by no ipsecd" in said.text
    elif row.runs:
        assert said.code == 1
        assert f"supervisor (pid {scene.pid}) runs, but does not hold {scene.lock}" in said.text
    else:
        assert said.code == 0, said.text
        assert "ipsecd: started: 1 rule of" in said.text
        assert instance.role(Role.SUPERVISOR) is not None
        return True
    assert (instance.roles(), instance.files()) == (before, files)
    return False


def assert_stop(scene: Scene) -> None:
    row, instance = scene.row, scene.instance
    ours = instance.roles()
    said = operate(instance, "stop")
    if row.lock == "held" and row.runs:
        assert said.code == 0, said.text
        assert said.lines[-1] == "IPsec stopped"
    elif row.lock == "held":
        assert said.code == 1
        assert f"  the lock of {instance.directory} is held: its files stay" in said.lines
    else:
        assert said.code == 1
        assert said.lines[0] == f"ipsecctl: IPsec is not running: no process holds {scene.lock}"
        assert said.lines[1] == "ipsecctl: cleaning up anyway"
        assert ("kernel: removed 1 policies" in said.text) == (row.kernel == "some" and not row.runs)
        assert (f"removed {scene.lock}" in said.text) == (row.lock == "stale")
    for one in ours:
        # A supervisor that is asked tells of its children; one that is ended does so in its log. A stranger is named.
        told = one.role is not Role.SUPERVISOR if row.lock == "held" else one.role is Role.SUPERVISOR
        stranger = row.process == "two" and one.pid == max(other.pid for other in ours)
        assert f"(pid {one.pid})" in said.text or not (told or stranger)
    left = [
        line for line in leftovers(instance, scene.at_first) if row.lock != "held" or row.runs or "file:" not in line
    ]
    assert left == []
    if row.process == "impostor":
        assert scene.others[0].poll() is None


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_o12_o15_o16_status_start_and_stop(scene: Scene) -> None:
    assert_status(scene)
    if assert_start(scene):
        assert operate(scene.instance, "stop").code == 0
        assert leftovers(scene.instance, scene.at_first) == []
        scene.leave()
    assert_stop(scene)

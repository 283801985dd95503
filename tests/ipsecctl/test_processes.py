"""Finding the processes of an instance by what they are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.process import process_start_time
from ipc.roles import Role
from ipsecctl import processes
from ipsecctl.processes import Process, end, find, identify
from ipsecctl.programs import role_in, running

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("line", "role"),
    [
        (f"{PYTHON} -P -m ike_worker --instance /run/a --supervisor 7", Role.IKE_WORKER),
        (f"{PYTHON} -m kernel_agent.userspace --instance=/run/a", Role.DATA_PATH),
        (f"{PYTHON} -P -m supervisor -d --instance /run/a", Role.SUPERVISOR),
        (f"{PYTHON} /usr/sbin/ipsecd -d --instance /run/a/", Role.SUPERVISOR),
        (f"{PYTHON} -P -m ike_worker --instance /run/b --supervisor 7", None),
        (f"{PYTHON} -P -m ike_worker --supervisor 7", None),
        (f"{PYTHON} -P -m ike_worker --instance", None),
        (f"{PYTHON} /usr/sbin/ipsecd", None),
        (f"{PYTHON} -m http.server --instance /run/a", None),
        ("grep -m ike_worker --instance /run/b", None),
        (f"vi -x {PYTHON} -m ike_worker --instance /run/a", None),
        ("", None),
    ],
)
def test_a_command_line_is_a_role_of_this_instance_or_nothing(line: str, role: Role | None) -> None:
    assert role_in(line.split(), "/run/a") is role


def test_a_supervisor_without_the_option_is_the_default_instances() -> None:
    assert role_in([PYTHON, "/usr/sbin/ipsecd", "-d"], "/run/ipsecd") is Role.SUPERVISOR


@pytest.fixture
def worker(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that looks like a worker of the instance /run/ipsecd-test-PID, and ignores SIGTERM."""
    package = tmp_path / "ike_worker"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ike_worker", "--instance", instance(), "--supervisor", "1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def instance() -> str:
    return f"/run/ipsecd-test-{os.getpid()}"


def test_a_process_is_found_with_its_start_time(worker: "subprocess.Popen[bytes]") -> None:
    (found,) = find(instance())
    assert (found.role, found.pid, found.start_time) == (Role.IKE_WORKER, worker.pid, process_start_time(worker.pid))
    assert find("/run/ipsecd-other") == ()
    assert (running(instance()), running("/run/ipsecd-other")) == ({worker.pid}, set())


def test_a_process_that_ignores_sigterm_is_killed(worker: "subprocess.Popen[bytes]") -> None:
    (found,) = find(instance())
    assert end(found, instance(), 0.2) == f"ike_worker (pid {worker.pid}) was ended by SIGKILL"
    assert identify(worker.pid, instance()) is None


def test_a_recycled_pid_is_left_alone(worker: "subprocess.Popen[bytes]") -> None:
    (found,) = find(instance())
    earlier = Process(role=found.role, pid=found.pid, start_time=found.start_time - 0.01)
    assert end(earlier, instance(), 0.2) == f"ike_worker (pid {worker.pid}) had ended already"
    assert worker.poll() is None


def test_a_pid_that_is_gone_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such(_pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(processes.os, "pidfd_open", no_such)
    ghost = Process(role=Role.IKE_WORKER, pid=2**22, start_time=0.01)
    assert end(ghost, instance(), 0.1).endswith("had ended already")

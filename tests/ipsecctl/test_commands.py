"""ipsecctl against a real supervisor with stand-ins for its roles, in a network namespace of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.namespaces import Namespace
from tests.lab.stage import Stage

pytestmark = pytest.mark.root


class Desk(Stage):
    """Where an operator sits."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> int:
        """Starts the stand-ins; the supervisor's pid."""
        self.start_stand_ins()
        return self.supervisor

    def ctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run("ipsecctl", "--instance", str(self.directory), *arguments)

    def impostor(self, module: str) -> int:
        """A process that looks like a role of this instance."""
        package = self.base / "fake" / module
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
        process = subprocess.Popen(
            self.namespace.command(
                *(sys.executable, "-P", "-m", module, "--instance", str(self.directory), "--supervisor", "1")
            ),
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self.processes.append(process)
        return process.pid

    def findings(self) -> list[str]:
        status: Any = json.loads(self.ctl("status", "--json").stdout)
        return [finding["code"] for finding in status["findings"]]

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        super().remove()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Namespace("desk") as namespace:
        made = Desk(namespace)
        try:
            yield made
        finally:
            made.remove()


def test_a_running_instance_is_reported_with_its_worker_and_exit_code_0(desk: Desk) -> None:
    desk.start()
    done = desk.ctl("status")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0]) == (0, "IPsec running"), done.stdout
    assert lines[1].startswith("ike_worker pid ")
    assert "policy_loader  " in done.stdout
    assert "restored-0  established  192.0.2.1:500  192.0.2.2:500" in done.stdout


def test_the_json_has_everything(desk: Desk) -> None:
    pid = desk.start()
    done = desk.ctl("status", "--json")
    status: Any = json.loads(done.stdout)
    assert (done.returncode, status["pid"], status["running"], status["findings"]) == (0, pid, True, [])
    assert status["tunnels"][0]["peer"] == "restored-0"
    assert status["roles"][0]["process"]["effective_capabilities"] == 1 << 12


def test_the_status_of_a_healthy_instance_loads_no_library(desk: Desk) -> None:
    desk.start()
    done = desk.run("ipsecctl", "--instance", str(desk.directory), "status", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stdout
    assert " ipsecctl.report" in done.stdout
    slow = ("psutil", "zmq", "pydantic", "ipc.messages", "dataclasses")
    assert [name for name in slow if f" {name}\n" in done.stdout] == []


def test_a_stopped_instance_is_reported_with_exit_code_0(desk: Desk) -> None:
    done = desk.ctl("status")
    assert (done.returncode, done.stdout) == (0, "IPsec stopped\n")


def test_start_has_nothing_to_do_where_it_runs(desk: Desk) -> None:
    pid = desk.start()
    done = desk.ctl("start")
    assert (done.returncode, done.stdout) == (0, f"ipsecd is already running (pid {pid})\n")


def test_a_start_that_fails_says_why(desk: Desk) -> None:
    done = desk.ctl("start", "--spd", str(desk.base / "nothing"))
    assert (done.returncode, done.stdout) == (6, f"ipsecd: {desk.base}/nothing: No such file or directory\n")


def test_stop_says_each_step_and_leaves_nothing(desk: Desk) -> None:
    desk.start()
    done = desk.ctl("stop")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "IPsec stopped"
    assert done.stdout.count("ended as asked") == 4
    assert desk.ctl("status").stdout == "IPsec stopped\n"


def test_stop_of_what_does_not_run_complains_cleans_up_anyway_and_exits_1(desk: Desk) -> None:
    pid = desk.start()
    os.kill(pid, signal.SIGKILL)
    worker = desk.impostor("ike_worker")
    assert sorted(desk.findings()) == ["orphaned-process", "stale-lock"]
    done = desk.ctl("stop")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("ipsecctl: IPsec is not running")
    assert lines[1] == "ipsecctl: cleaning up anyway"
    assert f"  ike_worker (pid {worker}) was ended by SIGTERM" in lines
    assert f"  removed {desk.directory}/ipsecd.lock" in lines
    assert f"  removed {desk.directory}/state.json" in lines
    assert [path.name for path in desk.directory.rglob("*") if not path.is_dir()] == ["ipsecd.log"]
    assert desk.ctl("status").returncode == 0
    assert len(desk.ctl("stop").stdout.splitlines()) == 2


def test_a_second_worker_beside_a_healthy_one_is_illicit(desk: Desk) -> None:
    desk.start()
    worker = desk.impostor("ike_worker")
    done = desk.ctl("status")
    assert done.returncode == 1
    assert f"illicit-process: ike_worker (pid {worker}) is no process of the supervisor" in done.stdout
    assert desk.findings() == ["illicit-process"]


def test_a_supervisor_that_does_not_answer_is_reported_in_bounded_time(desk: Desk) -> None:
    pid = desk.start()
    os.kill(pid, signal.SIGSTOP)
    done = desk.ctl("status")
    os.kill(pid, signal.SIGCONT)
    assert done.returncode == 1
    assert done.stdout.startswith("IPsec running\n")
    assert f"unresponsive: the supervisor (pid {pid}) is stopped by a signal" in done.stdout


def test_a_lock_that_was_left_is_named_and_blocks_no_start(desk: Desk) -> None:
    os.kill(desk.start(), signal.SIGKILL)
    assert desk.findings() == ["stale-lock"]
    desk.start()
    assert desk.findings() == []


def test_reload_says_what_is_in_force_and_what_is_wrong(desk: Desk) -> None:
    assert desk.ctl("reload").stdout == "ipsecctl: IPsec is not running\n"
    desk.start()
    desk.spd.write_text("one two three")
    done = desk.ctl("reload")
    assert (done.returncode, done.stdout) == (0, "policy generation 2 is in force: 3 rules\n")
    desk.spd.write_text("refuse")
    done = desk.ctl("reload")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"{desk.spd}:1:1: refuse: this word is refused"
    assert desk.findings() == ["policy-refused"]


GOOD_SPD = """\
[setup]
interfaces = ["lo"]
unmatched = "bypass"

[[rules]]
name = "all"
action = "bypass"
"""


def test_the_real_roles_start_restart_and_stop(desk: Desk) -> None:
    desk.spd.write_text(GOOD_SPD)
    desk.spd.chmod(0o600)
    started = desk.ctl("start", "--spd", str(desk.spd))
    assert started.returncode == 0, started.stdout
    assert "ipsecd: started: 1 rule of" in started.stdout
    before: Any = json.loads(desk.ctl("status", "--json").stdout)
    assert before["findings"] == []
    restarted = desk.ctl("restart")
    assert restarted.returncode == 0, restarted.stdout
    after: Any = json.loads(desk.ctl("status", "--json").stdout)
    assert after["findings"] == []
    assert (after["pid"] != before["pid"], after["policy"]["path"]) == (True, str(desk.spd))
    assert desk.ctl("stop").returncode == 0
    assert desk.namespace.pids() == []


def test_nothing_is_stopped_for_a_policy_file_that_is_not_good(desk: Desk) -> None:
    pid = desk.start()
    desk.spd.write_text(GOOD_SPD.replace("bypass", "bypas"))
    desk.spd.chmod(0o600)
    done = desk.ctl("restart")
    assert done.returncode == 1
    assert f"{desk.spd}:3:" in done.stdout
    assert done.stdout.splitlines()[-1] == "ipsecctl: not restarted: the policy file is not good"
    assert json.loads(desk.ctl("status", "--json").stdout)["pid"] == pid

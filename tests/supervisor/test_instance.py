"""A real supervisor with stand-ins for its roles, in a network namespace of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc import messages as m
from ipc import status_socket
from ipc.process import process_start_time
from ipc.roles import Role, uid_of
from ipsecctl.client import ask
from tests.lab import stage as lab
from tests.lab.namespaces import Namespace
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root


class Stage(lab.Stage):
    """A supervisor, and what can be asked of it."""

    def command(self, *options: str) -> list[str]:
        return self.namespace.command(
            *(sys.executable, "-P", "-m", "stand_ins.supervisor"),
            *("--instance", str(self.directory), "-f", str(self.spd), *options),
        )

    def start(self, *, silence_s: float = 10.0) -> str:
        """Starts a daemon; the lines it said. AssertionError with them if it did not start."""
        return self.start_stand_ins(STAND_IN_SILENCE_S=str(silence_s))

    def status(self) -> Any:
        return json.loads(status_socket.ask(str(self.directory), 20.0))

    def role(self, role: Role) -> Any:
        return next(one for one in self.status()["roles"] if one["role"] == role.value)

    def pid(self, role: Role) -> int:
        return int(self.role(role)["pid"])

    def is_back(self, role: Role, old_pid: int) -> Callable[[], bool]:
        def back() -> bool:
            now = self.role(role)
            return now["state"] == "up" and now["pid"] != old_pid

        return back

    def stop(self) -> m.CommandDone:
        return ask(str(self.directory), m.StopCommand(), 15.0)

    def log(self) -> str:
        return (self.directory / "ipsecd.log").read_text()


def gone(pid: int) -> Callable[[], bool]:
    def is_gone() -> bool:
        with contextlib.suppress(OSError):
            process_start_time(pid)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    return is_gone


def inherited(pid: int) -> dict[str, str]:
    """What stands behind each descriptor that a role was handed, by its name."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    text = next(item for item in environment if item.startswith("IPSECD_DESCRIPTORS="))
    pairs = [item.rpartition("=") for item in text.removeprefix("IPSECD_DESCRIPTORS=").split(",")]
    return {name: os.readlink(f"/proc/{pid}/fd/{number}") for name, _, number in pairs}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Namespace("stage") as namespace, Stage(namespace) as made:
        yield made


def test_a_start_says_what_runs_and_each_role_is_who_it_should_be(stage: Stage) -> None:
    said = stage.start()
    assert "ipsecd: started: 2 rules of" in said
    assert "userspace data path (auto: this kernel has no ESP" in said
    status = stage.status()
    assert status["findings"] == []
    assert [role["role"] for role in status["roles"]] == ["kernel_agent", "policy_loader", "data_path", "ike_worker"]
    for role in status["roles"]:
        assert role["process"]["uid"] == uid_of(Role(role["role"]))
        assert role["process"]["no_new_privs"]
    assert [role["process"]["effective_capabilities"] for role in status["roles"]] == [1 << 12, 0, 0, 0]
    assert "ipsec0" in stage.namespace.ip("link")


def test_link_sockets_belong_to_their_connectors_alone(stage: Stage) -> None:
    stage.start()
    owners = {path.name: path.stat() for path in (stage.directory / "links").iterdir()}
    assert {name: facts.st_uid for name, facts in owners.items()} == {
        "supervisor-agent": uid_of(Role.KERNEL_AGENT),
        "supervisor-loader": uid_of(Role.POLICY_LOADER),
        "supervisor-worker": uid_of(Role.IKE_WORKER),
        "supervisor-data": uid_of(Role.DATA_PATH),
        "loader-agent": uid_of(Role.POLICY_LOADER),
        "loader-worker": uid_of(Role.IKE_WORKER),
        "worker-agent": uid_of(Role.IKE_WORKER),
        "agent-data": uid_of(Role.DATA_PATH),
        "control": 0,
        "status": 0,
    }
    assert {facts.st_mode & 0o777 for facts in owners.values()} == {0o600}


@pytest.mark.parametrize("role", [Role.IKE_WORKER, Role.KERNEL_AGENT, Role.POLICY_LOADER, Role.DATA_PATH])
def test_a_killed_role_is_back_at_once_with_the_same_descriptors(stage: Stage, role: Role) -> None:
    stage.start()
    old = stage.pid(role)
    before = inherited(old)
    assert before or role is Role.POLICY_LOADER
    os.kill(old, signal.SIGKILL)
    wait_until(f"{role} is back", stage.is_back(role, old))
    assert inherited(stage.pid(role)) == before
    assert [finding["code"] for finding in stage.status()["findings"]] == ["role-restarted"]


def test_a_worker_that_was_killed_gets_its_ike_sas_back(stage: Stage) -> None:
    stage.start()
    assert [tunnel["peer"] for tunnel in stage.status()["tunnels"]] == ["restored-0"]
    os.kill(stage.pid(Role.IKE_WORKER), signal.SIGKILL)
    wait_until(
        "the new worker has restored one IKE SA",
        lambda: [tunnel["peer"] for tunnel in stage.status()["tunnels"]] == ["restored-1"],
    )


def test_a_worker_that_is_up_but_never_ready_is_started_again_and_status_tells_why(stage: Stage) -> None:
    stage.start_stand_ins(STAND_IN_READY_S="10")
    old = stage.pid(Role.IKE_WORKER)
    os.kill(old, signal.SIGRTMIN + 1)
    wait_until("what it saved is held", lambda: stage.status()["stored_ike_sas"] == 2)
    os.kill(old, signal.SIGKILL)
    wait_until("its successor is up", stage.is_back(Role.IKE_WORKER, old), timeout_s=60.0)
    successor = stage.pid(Role.IKE_WORKER)
    assert stage.role(Role.IKE_WORKER)["state"] == "up"
    wait_until("nobody waits for it any longer", gone(successor), timeout_s=90.0)
    wait_until("status tells why", lambda: "it is not ready after 10 s" in stage.role(Role.IKE_WORKER)["last_exit"])


def test_a_role_that_keeps_dying_is_started_less_and_less_often(stage: Stage) -> None:
    stage.start()
    for _ in range(2):
        old = stage.pid(Role.DATA_PATH)
        os.kill(old, signal.SIGKILL)
        wait_until("the data path is back", stage.is_back(Role.DATA_PATH, old))
    deaths = [line for line in stage.log().splitlines() if "has died" in line]
    assert [line.rpartition("; ")[2] for line in deaths] == ["started again in 0 s", "started again in 1 s"]


def test_the_sender_of_a_message_that_was_refused_is_started_again(stage: Stage) -> None:
    stage.start()
    old, agent = stage.pid(Role.IKE_WORKER), stage.pid(Role.KERNEL_AGENT)
    os.kill(old, signal.SIGUSR1)
    wait_until("the worker is back", stage.is_back(Role.IKE_WORKER, old))
    assert "kernel_agent refused what it sent on worker-agent" in stage.role(Role.IKE_WORKER)["last_exit"]
    assert stage.pid(Role.KERNEL_AGENT) == agent


def test_a_role_that_hangs_is_killed_and_started_again(stage: Stage) -> None:
    stage.start(silence_s=1.0)
    old = stage.pid(Role.IKE_WORKER)
    os.kill(old, signal.SIGUSR2)
    wait_until("the worker is back", stage.is_back(Role.IKE_WORKER, old))
    assert "it does not answer" in stage.role(Role.IKE_WORKER)["last_exit"]


def test_a_stop_leaves_nothing(stage: Stage) -> None:
    stage.start()
    pids = [stage.supervisor, *(role["pid"] for role in stage.status()["roles"])]
    done = stage.stop()
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.lines] == ["ike_worker", "data_path", "policy_loader", "kernel_agent"]
    assert all("ended as asked" in line for line in done.lines)
    wait_until("all processes are gone", lambda: all(gone(pid)() for pid in pids))
    left = [path.name for path in stage.directory.rglob("*") if not path.is_dir()]
    assert left == ["ipsecd.log"]
    assert "ipsec0" not in stage.namespace.ip("link")
    assert stage.namespace.run("cat", "/proc/net/udp").count("\n") == 1


def test_sigterm_to_a_foreground_supervisor_stops_it_in_order(stage: Stage) -> None:
    process = subprocess.Popen(
        stage.command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stage.environment(),
    )
    try:
        wait_until("it has started", lambda: _is_running(stage))
        process.terminate()
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert output.count("ended as asked") == 4
    assert [path for path in stage.directory.rglob("*") if not path.is_dir()] == []


def _is_running(stage: Stage) -> bool:
    try:
        return bool(stage.status()["phase"] == "running")
    except status_socket.NoStatus:
        return False


def test_a_second_start_is_refused_and_hurts_nothing(stage: Stage) -> None:
    stage.start()
    done = stage.try_stand_ins()
    assert done.returncode == 1
    assert done.stdout == f"ipsecd: ipsecd is already running (pid {stage.supervisor})\n"
    assert stage.status()["findings"] == []


@pytest.mark.parametrize("port", [500, 4500])
def test_a_port_that_is_taken_is_named_with_its_holder(stage: Stage, port: int) -> None:
    with contextlib.closing(stage.namespace.udp_socket("0.0.0.0", port)) as other:
        # Even one that would share the port: a packet could go to either.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        done = stage.try_stand_ins()
    assert done.returncode == 1
    assert f"UDP port {port} is held by " in done.stdout
    assert f"(pid {os.getpid()})" in done.stdout
    assert [path.name for path in stage.directory.rglob("*") if not path.is_dir()] == ["ipsecd.log"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("refuse", "ipsec.spd:2:1: and so is this line"),
        ("kernel", 'the policy says data_path = "kernel", but this kernel has no ESP'),
        ("interface", "the policy names interface no-such-interface; this host has lo"),
        ("die", "policy_loader died while it started: exit code 7"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(stage: Stage, policy: str, said: str) -> None:
    stage.spd.write_text(policy)
    started_at = time.monotonic()
    done = stage.try_stand_ins()
    assert done.returncode == 1
    assert said in done.stdout
    assert time.monotonic() - started_at < 30
    assert [path.name for path in stage.directory.rglob("*") if not path.is_dir()] == ["ipsecd.log"]
    assert stage.namespace.pids() == []
    assert stage.namespace.run("cat", "/proc/net/udp").count("\n") == 1


def test_a_missing_policy_file_is_named(stage: Stage) -> None:
    stage.spd.unlink()
    done = stage.try_stand_ins()
    assert (done.returncode, done.stdout) == (6, f"ipsecd: {stage.spd}: No such file or directory\n")


def test_a_credential_is_read_for_the_loader(stage: Stage) -> None:
    psk = stage.spd.with_name("psk")
    psk.write_text("12345")
    psk.chmod(0o640)
    stage.spd.write_text(f'credential "{psk}"')
    assert "warning: credential: 5 bytes, mode 640, uid 0" in stage.start()


def test_a_file_that_the_policy_does_not_name_is_not_read_for_the_loader(stage: Stage) -> None:
    psk = stage.spd.with_name("psk")
    psk.write_text("12345")
    stage.spd.write_text(f'credential {psk} "{psk}-of-another-name"')
    said = stage.start()
    assert "5 bytes" not in said
    assert f"warning: credential: '{psk}': the policy file does not name it" in said


def test_children_die_with_a_supervisor_that_is_killed_and_the_next_start_works(stage: Stage) -> None:
    stage.start()
    pids = [role["pid"] for role in stage.status()["roles"]]
    os.kill(stage.supervisor, signal.SIGKILL)
    wait_until("the children are gone", lambda: all(gone(pid)() for pid in pids))
    assert (stage.directory / "ipsecd.lock").exists()
    stage.start()
    assert stage.status()["findings"] == []


def test_a_reload_enforces_the_new_file_and_a_refused_one_changes_nothing(stage: Stage) -> None:
    stage.start()
    stage.spd.write_text("one two three")
    done = ask(str(stage.directory), m.ReloadCommand(), 5.0)
    assert (done.exit_code, done.lines) == (0, ("policy generation 2 is in force: 3 rules",))
    stage.spd.write_text("refuse")
    done = ask(str(stage.directory), m.ReloadCommand(), 5.0)
    assert done.exit_code == 1
    assert done.lines[0].endswith("ipsec.spd:1:1: refuse: this word is refused")
    status = stage.status()
    assert (status["policy"]["generation"], status["policy"]["rules"]) == (2, 3)
    assert [finding["code"] for finding in status["findings"]] == ["policy-refused"]


def test_sighup_reloads(stage: Stage) -> None:
    stage.start()
    stage.spd.write_text("one two three")
    os.kill(stage.supervisor, signal.SIGHUP)
    wait_until("generation 2 is in force", lambda: stage.status()["policy"]["generation"] == 2)


def test_a_new_loader_enforces_what_is_in_force_whatever_became_of_the_file(stage: Stage) -> None:
    stage.start()
    stage.spd.write_text("refuse")
    old = stage.pid(Role.POLICY_LOADER)
    os.kill(old, signal.SIGKILL)
    wait_until("the loader is back", stage.is_back(Role.POLICY_LOADER, old))
    assert [finding["code"] for finding in stage.status()["findings"]] == ["role-restarted"]
    assert stage.status()["policy"]["generation"] == 1


def test_ike_goes_to_the_worker_and_esp_in_udp_to_the_data_path(stage: Stage) -> None:
    stage.start()
    with contextlib.closing(stage.namespace.udp_socket("127.0.0.1", 0)) as sender:
        for payload in (bytes(4) + b"IKE", b"\x00\x00\x01\x00ESP", b"\x00\x00\x01\x00more ESP"):
            sender.sendto(payload, ("127.0.0.1", 4500))
    queues = {}
    for role in (Role.IKE_WORKER, Role.DATA_PATH):
        inode = inherited(stage.pid(role))["udp4500-v4"].removeprefix("socket:[").removesuffix("]")
        rows = [row.split() for row in stage.namespace.run("cat", "/proc/net/udp").splitlines()[1:]]
        queues[role] = next(int(row[4].partition(":")[2], 16) for row in rows if row[9] == inode)
    assert queues[Role.IKE_WORKER] > 0
    assert queues[Role.DATA_PATH] == 2 * queues[Role.IKE_WORKER]


def test_a_worker_that_fails_at_its_start_is_reported_and_the_rest_goes_on(stage: Stage) -> None:
    started_at = time.monotonic()
    done = stage.try_stand_ins(STAND_IN_BROKEN=Role.IKE_WORKER.value)
    assert time.monotonic() - started_at < 45
    assert done.returncode == 1
    assert "ipsecd: not started: ike_worker, tried again and again: exit code 7" in done.stdout
    states = {role["role"]: role["state"] for role in stage.status()["roles"]}
    assert states.pop("ike_worker") in ("waiting", "starting")
    assert set(states.values()) == {"up"}
    assert stage.role(Role.IKE_WORKER)["restarts"] >= 3
    assert stage.stop().exit_code == 0


def test_an_ike_sa_that_kills_every_worker_is_dropped_and_the_others_go_on(stage: Stage) -> None:
    stage.start()
    worker = stage.pid(Role.IKE_WORKER)
    os.kill(worker, signal.SIGRTMIN)
    wait_until("the poison is saved", lambda: stage.status()["stored_ike_sas"] == 2)
    os.kill(worker, signal.SIGKILL)
    wait_until(
        "a worker holds",
        lambda: [tunnel["peer"] for tunnel in stage.status()["tunnels"]] == ["restored-1"],
        timeout_s=15,
    )
    assert stage.status()["stored_ike_sas"] == 1
    assert "exit code 9" in stage.role(Role.IKE_WORKER)["last_exit"]
    assert "ike_worker failed 3 times: 1 IKE SAs, the last saved, are not restored any more" in stage.log()


def test_sigusr1_reopens_the_log_for_the_supervisor_and_its_children(stage: Stage) -> None:
    stage.start()
    path = stage.directory / "ipsecd.log"
    path.rename(path.with_name("ipsecd.log.1"))
    os.kill(stage.supervisor, signal.SIGUSR1)
    wait_until("there is a new log", lambda: path.exists() and "the log file was reopened" in path.read_text())
    agent = stage.pid(Role.KERNEL_AGENT)
    os.kill(stage.pid(Role.IKE_WORKER), signal.SIGUSR1)
    wait_until("the agent complains into it", lambda: f"kernel_agent[{agent}] WARNING" in stage.log())


def test_a_daemon_and_who_waits_for_it_are_told_apart_by_their_names(stage: Stage) -> None:
    stage.start()
    assert Path(f"/proc/{stage.supervisor}/comm").read_text() == "ipsecd\n"

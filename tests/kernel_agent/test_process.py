"""The agent as a real process, under its own uid with CAP_NET_ADMIN alone, in a namespace of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

import pytest
import zmq

from ipc import messages as m
from ipc.channel import Channel, Gatekeeper
from ipc.links import LINKS, SUPERVISOR_AGENT
from ipc.loop import Loop
from ipc.process import DESCRIPTORS_VARIABLE, LISTENER_PREFIX, SUPERVISOR_OPTION
from ipc.roles import Role, uid_of
from ipc.types import DataPathKind
from supervisor.sockets import open_listener, own_link_socket
from tests.kernel_agent.namespace import add_tun, clear_packet_arrives, host_and_peer
from tests.lab.namespaces import Namespace

pytestmark = pytest.mark.root

CHECKOUT = Path(__file__).parents[2]
STUB_LOADER = Path(__file__).with_name("stub_loader.py")
T = TypeVar("T")


class Supervisor:
    """This test, as the agent sees its supervisor; it starts the agent and a loader in `namespace`."""

    def __init__(self, namespace: Namespace, directory: str) -> None:
        self.namespace = namespace
        self.heard: list[object] = []
        self._directory = directory
        self._loop = Loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, self._loop)
        self._processes: list[subprocess.Popen[str]] = []
        os.mkdir(f"{directory}/links", 0o711)
        self._listeners = {
            link.name: open_listener(directory, link) for link in LINKS if link.binder is Role.KERNEL_AGENT
        }
        self._link = Channel(
            context=self._context,
            loop=self._loop,
            gatekeeper=self._gatekeeper,
            link=SUPERVISOR_AGENT,
            role=Role.SUPERVISOR,
            run_directory=directory,
            handlers={
                kind: lambda message, _peer: self.heard.append(message)
                for kind in SUPERVISOR_AGENT.receivable(Role.SUPERVISOR)
            },
        )
        own_link_socket(directory, SUPERVISOR_AGENT)

    def start(self, *program: str) -> subprocess.Popen[str]:
        """Starts a role."""
        handed = {LISTENER_PREFIX + name: listener.fileno() for name, listener in self._listeners.items()}
        arguments = ["--instance", self._directory, SUPERVISOR_OPTION, str(os.getpid())]
        process = subprocess.Popen(
            self.namespace.command(sys.executable, *program, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            pass_fds=tuple(handed.values()),
            env={**os.environ, DESCRIPTORS_VARIABLE: ",".join(f"{name}={fd}" for name, fd in handed.items())},
        )
        self._processes.append(process)
        return process

    def send(self, message: object) -> None:
        self._link.send(message)

    def wait_for(self, kind: type[T]) -> T:
        """Goes round until a message of this kind has come, and takes it."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for message in self.heard:
                if isinstance(message, kind):
                    self.heard.remove(message)
                    return message
            self._loop.run_once(0.05)
        raise AssertionError(f"no {kind.__name__}; heard {self.heard}")

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._link.close()
        for listener in self._listeners.values():
            listener.close()
        self._gatekeeper.close()
        self._context.term()


@pytest.fixture
def hosts() -> Iterator[tuple[Supervisor, Namespace]]:
    with host_and_peer() as (host, peer), tempfile.TemporaryDirectory(prefix="ipsecd-agent-") as directory:
        os.chmod(directory, 0o711)
        add_tun(host)
        with contextlib.closing(Supervisor(host, directory)) as supervisor:
            yield supervisor, peer


def line_of(output: IO[str] | None) -> str:
    assert output is not None
    return output.readline()


def test_it_drops_enforces_survives_sigkill_and_cleans_up(hosts: tuple[Supervisor, Namespace]) -> None:
    supervisor, peer = hosts
    host = supervisor.namespace
    use = m.UseDataPath(kind=DataPathKind.USERSPACE, tun_interface="ipsec0")
    agent = supervisor.start("-m", "kernel_agent")
    assert supervisor.wait_for(m.Hello).pid == agent.pid
    ready = supervisor.wait_for(m.AgentReady)
    assert ready.kernel_esp or "takes no ESP" in ready.detail

    status = Path(f"/proc/{agent.pid}/status").read_text()
    assert f"Uid:\t{uid_of(Role.KERNEL_AGENT)}\t" in status
    assert "CapEff:\t0000000000001000\n" in status
    assert "CapBnd:\t0000000000000000\n" in status

    assert clear_packet_arrives(host, peer)
    supervisor.send(use)
    supervisor.wait_for(m.DataPathReady)
    loader = supervisor.start(str(STUB_LOADER))
    assert line_of(loader.stdout) == "PolicyInstalled(generation=1)\n"
    assert not clear_packet_arrives(host, peer)

    agent.kill()
    agent.wait()
    assert not clear_packet_arrives(host, peer)
    policies = host.ip("xfrm", "policy")

    agent = supervisor.start("-m", "kernel_agent")
    assert supervisor.wait_for(m.Hello).pid == agent.pid
    supervisor.send(use)
    assert line_of(loader.stdout) == "PolicyInstalled(generation=1)\n"
    assert host.ip("xfrm", "policy") == policies

    supervisor.send(m.Stop(deadline_s=5.0))
    stopped = supervisor.wait_for(m.Stopped)
    assert stopped.summary == (
        "removed 8 policies; removed 4 routing rules; removed 2 routes; removed 1 nftables tables"
    )
    assert agent.wait(10) == 0
    assert host.ip("xfrm", "policy") == ""
    assert clear_packet_arrives(host, peer)


def test_a_data_path_that_is_not_there_is_refused(hosts: tuple[Supervisor, Namespace]) -> None:
    supervisor, _ = hosts
    supervisor.start("-m", "kernel_agent")
    supervisor.wait_for(m.AgentReady)
    supervisor.send(m.UseDataPath(kind=DataPathKind.USERSPACE, tun_interface="ipsec7"))
    assert supervisor.wait_for(m.DataPathFailed).reason == "the TUN device ipsec7 does not exist"
    supervisor.send(m.UseDataPath(kind=DataPathKind.USERSPACE, tun_interface="ipsec0"))
    supervisor.wait_for(m.DataPathReady)


def test_the_clean_command_says_what_it_found(hosts: tuple[Supervisor, Namespace]) -> None:
    host = hosts[0].namespace
    add = ("xfrm", "policy", "add", "src", "10.7.0.0/24", "dst", "10.8.0.0/24", "dir", "out")
    host.ip(*add, "index", "0x49000009")
    host.ip(*("xfrm", "policy", "add", "src", "10.9.0.0/24", "dst", "10.8.0.0/24", "dir", "out"))
    host.ip("rule", "add", "from", "10.7.0.0/16", "lookup", "4500", "priority", "4501", "protocol", "73")
    command = ("env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "kernel_agent.clean")
    assert host.run(*command) == "removed 1 policies\nremoved 1 routing rules\n"
    assert host.run(*command) == ""
    assert "10.9.0.0/24" in host.ip("xfrm", "policy")

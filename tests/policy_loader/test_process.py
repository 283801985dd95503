"""The role as a process of its own: it must need nothing once it has dropped its privileges."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc import messages as m
from ipc.channel import Channel, Gatekeeper
from ipc.links import LOADER_AGENT, LOADER_WORKER, SUPERVISOR_LOADER, Link, socket_path
from ipc.loop import Loop
from ipc.process import DESCRIPTORS_VARIABLE, LISTENER_PREFIX
from ipc.roles import Role, uid_of
from ipc.types import Secret

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"

LATE_IMPORTS = """
import sys
from pathlib import Path
import policy_loader.__main__
from ipc.types import Secret
from policy_loader import policy_file
from policy_loader.errors import PolicyError
from policy_loader.rule_ids import RuleIds
known = set(sys.modules)
for path in sorted(Path(sys.argv[1]).rglob("*.spd")):
    try:
        file = policy_file.read(path.name, path.read_bytes(), 0o600, 0)
        key = policy_file.FetchedFile(content=Secret(b"key"), mode=0o600, uid=0)
        file.compile(dict.fromkeys(file.secret_files(), key), RuleIds())
    except PolicyError:
        pass
print(sorted(set(sys.modules) - known))
"""


def test_nothing_is_imported_after_the_start() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LATE_IMPORTS, str(CORPUS)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


class Instance:
    """The supervisor's and the agent's ends of the loader's links, and the loader itself."""

    def __init__(self, directory: Path) -> None:
        self.heard: list[object] = []
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gatekeeper = Gatekeeper(self.context, self.loop)
        self.directory = directory
        (directory / "links").mkdir()
        self._worker_listener = self._listen(LOADER_WORKER)
        self.supervisor = self._open(SUPERVISOR_LOADER, Role.SUPERVISOR)
        self.agent = self._open(LOADER_AGENT, Role.KERNEL_AGENT)
        descriptor = self._worker_listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "policy_loader", "--instance", str(directory), "--supervisor", str(os.getpid())],
            cwd=ROOT,
            pass_fds=(descriptor,),
            env={**os.environ, DESCRIPTORS_VARIABLE: f"{LISTENER_PREFIX}{LOADER_WORKER.name}={descriptor}"},
        )

    def _listen(self, link: Link) -> socket.socket:
        path = socket_path(str(self.directory), link)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chown(path, uid_of(link.connector), uid_of(link.connector))
        listener.listen()
        return listener

    def _open(self, link: Link, role: Role) -> Channel:
        return Channel(
            context=self.context,
            loop=self.loop,
            gatekeeper=self.gatekeeper,
            link=link,
            role=role,
            run_directory=str(self.directory),
            handlers=dict.fromkeys(link.receivable(role), lambda message, _peer: self.heard.append(message)),
            listener=self._listen(link).detach(),
        )

    def wait_for(self, arrived: Callable[[object], bool]) -> None:
        deadline = time.monotonic() + 20
        while not any(arrived(message) for message in self.heard):
            assert time.monotonic() < deadline, self.heard
            self.loop.run_once(0.1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.supervisor.close()
        self.agent.close()
        self.gatekeeper.close()
        self.context.term()
        self._worker_listener.close()


@pytest.fixture
def instance() -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="ipsecd-loader-") as name:
        os.chmod(name, 0o755)
        one = Instance(Path(name))
        try:
            yield one
        finally:
            one.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a role that drops it")
def test_the_role_parses_and_enforces_without_any_privilege(instance: Instance) -> None:
    instance.wait_for(lambda message: isinstance(message, m.Hello))
    status = Path(f"/proc/{instance.process.pid}/status").read_text()
    assert f"Uid:\t{uid_of(Role.POLICY_LOADER)}\t" in status
    assert "CapEff:\t0000000000000000" in status

    bad, good = ((CORPUS / name).read_bytes() for name in ("bad/many-at-once.spd", "good/windows-line-ends.spd"))
    for generation, content in ((1, bad), (2, good)):
        instance.supervisor.send(
            m.ParsePolicy(generation=generation, path="/etc/ipsec.spd", content=Secret(content), mode=0o600, uid=0)
        )
    instance.wait_for(lambda message: isinstance(message, m.PolicyRefused) and len(message.errors) == 6)
    instance.wait_for(lambda message: isinstance(message, m.PolicyParsed) and message.rules == 1)

    instance.supervisor.send(m.EnforcePolicy(generation=2))
    instance.wait_for(lambda message: message == m.CommitPolicy(generation=2, rules=2))
    instance.agent.send(m.PolicyInstalled(generation=2))
    instance.wait_for(lambda message: message == m.PolicyEnforced(generation=2))

    instance.supervisor.send(m.Stop(deadline_s=1.0))
    instance.wait_for(lambda message: isinstance(message, m.Stopped))
    assert instance.process.wait(10) == 0

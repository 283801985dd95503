"""A loader between a supervisor, an agent and a worker that are played by a test: no socket, and time on demand."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ipc import codec
from ipc import messages as m
from ipc.channel import Handler
from ipc.errors import PeerGone
from ipc.links import LOADER_AGENT, LOADER_WORKER, SUPERVISOR_LOADER, Link
from ipc.loop import Timer
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import Secret
from policy_loader.loader import Loader

T = TypeVar("T")
PSK = b"correct horse battery staple"
FILE_PSK = b"a key that came from a file"

POLICY = f"""
[setup]
interfaces = ["eth0"]
unmatched = "bypass"
[peers.branch]
address = "198.51.100.7"
local_id = "hq.example.net"
auth = "psk"
psk = "{PSK.decode()}"
[[rules]]
name = "lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"
[[rules]]
name = "ssh"
action = "bypass"
protocol = "tcp"
local_port = 22
"""
FILE_POLICY = POLICY.replace(f'psk = "{PSK.decode()}"', 'psk_file = "/etc/ipsecd/branch.psk"')
CHANGED_POLICY = POLICY.replace("10.2.0.0/16", "10.3.0.0/16")


class FakeLoop:
    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[Timer] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.now + delay_s, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [one for one in self._timers if one.when <= self.now]:
            self._timers.remove(timer)
            if timer.callback is not None:
                timer.callback()

    def pending(self) -> int:
        return sum(timer.callback is not None for timer in self._timers)


class FakeChannel:
    """Keeps what was sent, after a trip through the codec, and refuses what the access list does not have."""

    def __init__(self, link: Link, handlers: Mapping[type, Handler], on_connected: Any = None) -> None:
        assert set(handlers) == link.receivable(Role.POLICY_LOADER)
        self._link = link
        self._handlers = handlers
        self._on_connected = on_connected
        self.connected = True
        self.wire: list[bytes] = []
        self._taken = 0

    def send(self, message: object, peer: bytes | None = None) -> None:
        assert type(message) in self._link.sendable(Role.POLICY_LOADER)
        if not self.connected:
            raise PeerGone(f"{self._link.name}: nobody there")
        self.wire.append(codec.encode(message))

    def try_send(self, message: object, peer: bytes | None = None) -> bool:
        try:
            self.send(message, peer)
        except PeerGone:
            return False
        return True

    def deliver(self, message: object) -> None:
        self._handlers[type(message)](codec.decode(codec.encode(message)), b"peer")

    def connect(self) -> None:
        self.connected = True
        self._on_connected(b"ike_worker")

    def peek(self) -> list[object]:
        """What was sent since the last time."""
        return [codec.decode(data) for data in self.wire[self._taken :]]

    def take(self) -> list[object]:
        """The same, and it is not fresh any more."""
        fresh = self.peek()
        self._taken = len(self.wire)
        return fresh


class World:
    """A loader with everybody it speaks with."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.answers_checks = True
        """The agent finds that the kernel would take whatever it is asked about."""
        self.channels: dict[str, FakeChannel] = {}
        Loader(cast(RoleProcess, self))
        self.supervisor = self.channels[SUPERVISOR_LOADER.name]
        self.agent = self.channels[LOADER_AGENT.name]
        self.worker = self.channels[LOADER_WORKER.name]

    def open_supervisor_link(self, handlers: Mapping[type, Handler]) -> FakeChannel:
        life: dict[type, Handler] = {m.HealthQuestion: lambda *_: None, m.Stop: lambda *_: None}
        return self.open_link(SUPERVISOR_LOADER, {**life, **handlers})

    def open_link(self, link: Link, handlers: Mapping[type, Handler], on_connected: Any = None) -> FakeChannel:
        self.channels[link.name] = FakeChannel(link, handlers, on_connected)
        return self.channels[link.name]

    def parse(self, generation: int, text: str = POLICY, mode: int = 0o600, uid: int = 0) -> list[object]:
        content = Secret(text.encode())
        self.supervisor.deliver(
            m.ParsePolicy(generation=generation, path="/etc/ipsec.spd", content=content, mode=mode, uid=uid)
        )
        self.answer_check()
        return self.supervisor.take()

    def answer_check(self) -> None:
        """As an agent that would take it, if it was asked."""
        begun = [one for one in self.agent.peek() if isinstance(one, m.BeginPolicy)]
        if self.answers_checks and begun and begun[-1].check_only:
            self.agent.take()
            self.agent.deliver(m.PolicyInstalled(generation=begun[-1].generation))

    def enforce(self, generation: int) -> list[object]:
        self.supervisor.deliver(m.EnforcePolicy(generation=generation))
        return self.agent.take()

    def put_in_force(self, generation: int, text: str = POLICY) -> None:
        self.parse(generation, text)
        self.enforce(generation)
        self.agent.deliver(m.PolicyInstalled(generation=generation))
        assert self.supervisor.take() == [m.PolicyEnforced(generation=generation)]
        self.worker.take()

    def credential(self, request_id: int, content: bytes, **other: Any) -> list[object]:
        fields = {"mode": 0o400, "uid": 0, "error": "", **other}
        self.supervisor.deliver(m.CredentialContent(request_id=request_id, content=Secret(content), **fields))
        self.answer_check()
        return self.supervisor.take()


def only(messages: list[object], kind: type[T]) -> T:
    (message,) = messages
    assert isinstance(message, kind)
    return message


def rules_of(messages: list[object]) -> dict[str, int]:
    return {rule.name: rule.rule_id for one in messages if isinstance(one, m.AddPolicy) for rule in one.rules}


def generations(messages: list[object]) -> list[int]:
    """Of the whole policies among `messages`."""
    return [one.generation for one in messages if isinstance(one, m.CommitPolicy)]

"""The loader between a supervisor, an agent and a worker that are played by the test: no socket, and time on demand."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import pytest

from ipc import codec
from ipc import messages as m
from ipc.algorithms import PrfId
from ipc.channel import Handler
from ipc.errors import PeerGone
from ipc.links import LOADER_AGENT, LOADER_WORKER, SUPERVISOR_LOADER, Link
from ipc.loop import Timer
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import Secret
from policy_loader.loader import ANSWER_WAIT_S, Loader

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
        self._on_connected(b"peer")

    def take(self) -> list[object]:
        """What was sent since the last time."""
        fresh = self.wire[self._taken :]
        self._taken = len(self.wire)
        return [codec.decode(data) for data in fresh]


class World:
    """A loader with everybody it speaks with."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
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
        return self.supervisor.take()

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
        return self.supervisor.take()


@pytest.fixture
def world() -> World:
    return World()


def only(messages: list[object], kind: type[T]) -> T:
    (message,) = messages
    assert isinstance(message, kind)
    return message


def rules_of(messages: list[object]) -> dict[str, int]:
    return {rule.name: rule.rule_id for one in messages if isinstance(one, m.AddPolicy) for rule in one.rules}


def generations(messages: list[object]) -> list[int]:
    """Of the whole policies among `messages`."""
    return [one.generation for one in messages if isinstance(one, m.CommitPolicy)]


# ----------------------------------------------------------------- parsing


def test_a_good_file_is_parsed_and_nothing_is_enforced(world: World) -> None:
    parsed = only(world.parse(1), m.PolicyParsed)
    assert (parsed.generation, parsed.rules, parsed.interfaces, len(parsed.sha256)) == (1, 2, ("eth0",), 32)
    assert world.agent.take() == world.worker.take() == []
    assert world.loop.pending() == 0


def test_a_bad_file_is_refused_with_its_place(world: World) -> None:
    refused = only(world.parse(1, POLICY.replace('"protect"', '"protekt"')), m.PolicyRefused)
    (error,) = refused.errors
    assert error.splitlines() == [
        '/etc/ipsec.spd:12:1: rules.action: "protekt" is not known; did you mean "protect"?',
        '    action = "protekt"',
        "    ^",
    ]


@pytest.mark.parametrize(("mode", "uid"), [(0o640, 0), (0o600, 1000)])
def test_a_file_that_others_could_read_or_have_written_is_not_even_parsed(world: World, mode: int, uid: int) -> None:
    refused = only(world.parse(1, "not toml", mode, uid), m.PolicyRefused)
    assert len(refused.errors) == 1
    assert refused.errors[0].startswith("/etc/ipsec.spd:1:1: file: ")


def test_a_key_in_a_file_is_asked_for_and_used(world: World) -> None:
    asked = only(world.parse(1, FILE_POLICY), m.ReadCredential)
    assert asked.path == "/etc/ipsecd/branch.psk"
    only(world.credential(asked.request_id, FILE_PSK + b"\n"), m.PolicyParsed)
    assert world.loop.pending() == 0


def test_one_file_for_two_peers_is_asked_for_once(world: World) -> None:
    second = """
[peers.depot]
address = "198.51.100.8"
local_id = "hq.example.net"
auth = "psk"
psk_file = "/etc/ipsecd/branch.psk"
"""
    asked = only(world.parse(1, FILE_POLICY + second), m.ReadCredential)
    parsed = only(world.credential(asked.request_id, FILE_PSK), m.PolicyParsed)
    assert [warning for warning in parsed.warnings if "depot" in warning]


@pytest.mark.parametrize(
    ("content", "other", "words"),
    [
        (b"", {"error": "No such file or directory"}, "No such file or directory"),
        (b"\n", {}, "the pre-shared key is empty"),
        (FILE_PSK, {"mode": 0o444}, "others may read it (bit 0004)"),
        (FILE_PSK, {"uid": 7}, "belongs to uid 7"),
    ],
)
def test_a_key_file_that_is_no_good_refuses_the_policy(
    world: World, content: bytes, other: dict[str, object], words: str
) -> None:
    asked = only(world.parse(1, FILE_POLICY), m.ReadCredential)
    (error,) = only(world.credential(asked.request_id, content, **other), m.PolicyRefused).errors
    assert error.startswith("/etc/ipsec.spd:9:1: peers.branch.psk_file: /etc/ipsecd/branch.psk: ")
    assert words in error


def test_a_key_file_that_does_not_come_refuses_the_policy(world: World) -> None:
    asked = only(world.parse(1, FILE_POLICY), m.ReadCredential)
    world.loop.advance(ANSWER_WAIT_S - 0.1)
    assert world.supervisor.take() == []
    world.loop.advance(0.2)
    refused = only(world.supervisor.take(), m.PolicyRefused)
    assert "/etc/ipsecd/branch.psk" in refused.errors[0]
    assert world.credential(asked.request_id, FILE_PSK) == []


def test_a_newer_file_takes_the_place_of_one_that_waits(world: World) -> None:
    asked = only(world.parse(1, FILE_POLICY), m.ReadCredential)
    refused, parsed = world.parse(2)
    assert isinstance(refused, m.PolicyRefused)
    assert isinstance(parsed, m.PolicyParsed)
    assert (refused.generation, parsed.generation) == (1, 2)
    assert world.credential(asked.request_id, FILE_PSK) == []


def test_no_more_errors_are_told_than_a_message_holds(world: World) -> None:
    text = POLICY + "".join(f"[[rules]]\nnme = {number}\n" for number in range(600))
    errors = only(world.parse(1, text), m.PolicyRefused).errors
    assert len(errors) == 1000
    assert errors[-1] == "and 801 more"


# ----------------------------------------------------------------- enforcing


def test_a_policy_goes_to_the_agent_and_when_it_is_installed_to_the_worker(world: World) -> None:
    world.parse(1)
    begin, add, commit = world.enforce(1)
    assert isinstance(begin, m.BeginPolicy)
    assert isinstance(add, m.AddPolicy)
    assert (begin.generation, begin.interfaces) == (1, ("eth0",))
    assert [rule.name for rule in add.rules] == ["lan", "ssh"]
    assert commit == m.CommitPolicy(generation=1, rules=2)
    assert world.worker.take() == world.supervisor.take() == []

    world.agent.deliver(m.PolicyInstalled(generation=1))
    assert world.supervisor.take() == [m.PolicyEnforced(generation=1)]
    told = world.worker.take()
    assert [type(one) for one in told] == [m.BeginPolicy, m.AddPeer, m.AddNegotiationRule, m.CommitPolicy]
    assert told[-1] == m.CommitPolicy(generation=1, rules=1)
    assert world.loop.pending() == 0


def test_a_long_policy_goes_in_pieces_and_in_order(world: World) -> None:
    text = POLICY + "".join(
        f'[[rules]]\nname = "r{n}"\naction = "discard"\nremote = ["10.9.{n >> 8}.{n & 255}"]\n' for n in range(600)
    )
    world.parse(1, text)
    messages = world.enforce(1)
    pieces = [one.rules for one in messages if isinstance(one, m.AddPolicy)]
    assert [len(piece) for piece in pieces] == [256, 256, 90]
    assert [rule.position for piece in pieces for rule in piece] == list(range(602))
    assert messages[-1] == m.CommitPolicy(generation=1, rules=602)


def test_a_policy_the_agent_refuses_leaves_the_one_before_in_force(world: World) -> None:
    world.put_in_force(1)
    world.parse(2, CHANGED_POLICY)
    world.enforce(2)
    world.agent.deliver(m.PolicyNotInstalled(generation=2, reason="no such device"))
    assert world.supervisor.take() == [m.PolicyNotEnforced(generation=2, reason="no such device")]
    assert world.worker.take() == []
    world.agent.deliver(m.NeedPolicy())
    assert generations(world.agent.take()) == [1]
    world.worker.connect()
    assert generations(world.worker.take()) == [1]


def test_an_agent_that_does_not_answer_is_set_back_to_the_policy_in_force(world: World) -> None:
    world.put_in_force(1)
    world.parse(2, CHANGED_POLICY)
    world.enforce(2)
    world.loop.advance(ANSWER_WAIT_S + 0.1)
    assert only(world.supervisor.take(), m.PolicyNotEnforced).generation == 2
    assert generations(world.agent.take()) == [1]
    for late in (2, 1):
        world.agent.deliver(m.PolicyInstalled(generation=late))
    assert world.supervisor.take() == world.worker.take() == []
    world.worker.connect()
    assert generations(world.worker.take()) == [1]


def test_an_agent_that_cannot_be_told_is_reported_at_once(world: World) -> None:
    world.parse(1)
    world.agent.connected = False
    world.enforce(1)
    assert only(world.supervisor.take(), m.PolicyNotEnforced).generation == 1
    assert world.loop.pending() == 0


@pytest.mark.parametrize("generation", [1, 3])
def test_only_the_policy_that_was_parsed_last_can_be_enforced(world: World, generation: int) -> None:
    world.parse(1)
    world.parse(2)
    assert world.enforce(generation) == []
    assert only(world.supervisor.take(), m.PolicyNotEnforced).generation == generation


def test_one_policy_at_a_time_is_enforced(world: World) -> None:
    world.parse(1)
    world.enforce(1)
    world.parse(2, CHANGED_POLICY)
    assert world.enforce(2) == []
    assert "policy 1 is being enforced" in only(world.supervisor.take(), m.PolicyNotEnforced).reason
    world.agent.deliver(m.PolicyInstalled(generation=1))
    assert generations(world.enforce(2)) == [2]


def test_a_policy_in_force_is_not_enforced_twice(world: World) -> None:
    world.put_in_force(1)
    assert world.enforce(1) == []
    assert world.supervisor.take() == [m.PolicyEnforced(generation=1)]


# ----------------------------------------------------------------- who is new


def test_who_comes_before_there_is_a_policy_gets_none(world: World) -> None:
    world.worker.connect()
    world.worker.deliver(m.NeedPolicy())
    world.agent.deliver(m.NeedPolicy())
    assert world.worker.take() == world.agent.take() == []


def test_a_worker_that_connects_or_asks_gets_the_policy_in_force(world: World) -> None:
    world.worker.connected = False
    world.put_in_force(1)
    world.worker.connect()
    first = world.worker.take()
    world.worker.deliver(m.NeedPolicy())
    assert generations(first) == [1]
    assert world.worker.take() == first


def test_an_agent_that_restarts_while_a_policy_is_enforced_gets_the_old_one_and_then_the_new(world: World) -> None:
    world.put_in_force(1)
    world.parse(2, CHANGED_POLICY)
    world.enforce(2)
    world.agent.deliver(m.NeedPolicy())
    assert generations(world.agent.take()) == [1, 2]
    world.agent.deliver(m.PolicyInstalled(generation=1))
    assert world.supervisor.take() == []
    world.agent.deliver(m.PolicyInstalled(generation=2))
    assert world.supervisor.take() == [m.PolicyEnforced(generation=2)]


def test_an_agent_that_does_not_take_the_policy_in_force_again_is_reported(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put_in_force(1)
    world.agent.deliver(m.NeedPolicy())
    world.agent.deliver(m.PolicyNotInstalled(generation=1, reason="the kernel is full"))
    assert world.supervisor.take() == [m.PolicyNotEnforced(generation=1, reason="the kernel is full")]
    assert [one.levelno for one in caplog.records if "in force again" in one.message] == [logging.ERROR]


def test_a_restarted_loader_tells_the_same_ids(world: World) -> None:
    world.parse(1, CHANGED_POLICY)
    world.enforce(1)
    world.agent.deliver(m.PolicyInstalled(generation=1))
    world.agent.take()
    world.parse(2)
    before = world.enforce(2)
    restarted = World()
    restarted.parse(2)
    assert rules_of(restarted.enforce(2)) == rules_of(before)


def test_a_reload_changes_the_id_of_the_changed_rule_alone(world: World) -> None:
    world.parse(1)
    before = rules_of(world.enforce(1))
    world.agent.deliver(m.PolicyInstalled(generation=1))
    world.parse(2, CHANGED_POLICY)
    after = rules_of(world.enforce(2))
    assert after["ssh"] == before["ssh"]
    assert after["lan"] not in before.values()


# ----------------------------------------------------------------- AUTH


def compute(peer: str = "branch", request_id: int = 9) -> m.ComputeAuth:
    header = bytes(16) + bytes((33, 0x20, 34, 0x08)) + bytes(4) + (28).to_bytes(4, "big")
    return m.ComputeAuth(
        request_id=request_id,
        peer=peer,
        prf=PrfId.HMAC_SHA2_256,
        initiator=True,
        message=header,
        nonce=bytes(32),
        sk_p=Secret(bytes(32)),
        id_payload=bytes((2, 0, 0, 0)) + b"hq.example.net",
    )


def verify(data: bytes, peer: str = "branch") -> m.VerifyAuth:
    return m.VerifyAuth(
        request_id=10,
        peer=peer,
        prf=PrfId.HMAC_SHA2_256,
        initiator=True,
        message=compute().message,
        nonce=bytes(32),
        sk_p=Secret(bytes(32)),
        id_payload=bytes((1, 0, 0, 0)) + bytes((198, 51, 100, 7)),
        method=2,
        data=data,
    )


def auth(world: World) -> bytes:
    world.worker.deliver(compute())
    return only(world.worker.take(), m.AuthComputed).data


def test_auth_is_computed_with_the_secret_in_force_and_not_with_the_next(world: World) -> None:
    world.put_in_force(1)
    first = auth(world)
    world.parse(2, POLICY.replace("battery", "hydrant"))
    world.enforce(2)
    assert auth(world) == first
    world.agent.deliver(m.PolicyInstalled(generation=2))
    world.worker.take()
    assert auth(world) != first


def test_the_peers_auth_is_verified_with_yes_or_no(world: World) -> None:
    world.put_in_force(1)
    # openssl dgst -mac HMAC, as in test_signer.py
    good = bytes.fromhex("7c6788fba264147521b3671d1b189bd2abcfa7ffcf4b2ee7e3bbfa12ea5c2cf6")
    for data, valid in ((good, True), (good[::-1], False)):
        world.worker.deliver(verify(data))
        assert world.worker.take() == [m.AuthVerified(request_id=10, valid=valid)]


def test_a_peer_that_the_policy_does_not_have_is_refused(world: World) -> None:
    world.put_in_force(1)
    for request in (compute("depot"), verify(bytes(32), "depot")):
        world.worker.deliver(request)
        refused = only(world.worker.take(), m.AuthRefused)
        assert (refused.request_id, "depot" in refused.reason) == (request.request_id, True)


def test_another_identity_is_refused(world: World) -> None:
    world.put_in_force(1)
    world.worker.deliver(dataclasses.replace(compute(), id_payload=b"x"))
    assert "identity" in only(world.worker.take(), m.AuthRefused).reason


def test_before_a_policy_is_in_force_requests_wait_for_the_worker_to_ask_again(world: World) -> None:
    world.worker.deliver(compute())
    assert world.worker.take() == []


def test_no_message_and_no_log_line_ever_holds_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    second = FILE_POLICY.replace("peers.branch", "peers.depot").replace("198.51.100.7", "198.51.100.8")
    peers = second[second.index("[peers") : second.index("[[rules")]
    (asked,) = [one for one in world.parse(1, peers + POLICY) if isinstance(one, m.ReadCredential)]
    world.credential(asked.request_id, FILE_PSK)
    world.enforce(1)
    world.agent.deliver(m.PolicyInstalled(generation=1))
    world.agent.deliver(m.NeedPolicy())
    world.worker.connect()
    world.worker.deliver(compute())
    world.worker.deliver(verify(bytes(32)))
    world.worker.deliver(compute("depot"))
    world.parse(2, POLICY + "psk = 1")
    wire = [data for channel in world.channels.values() for data in channel.wire]
    assert len(wire) > 15
    for secret in (PSK, FILE_PSK):
        assert not [data for data in wire if secret in data]
        assert secret.decode() not in caplog.text

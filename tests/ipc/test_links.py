"""The access list, enforced by real channels: what may not pass is refused and counted, and life goes on."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from ipc import codec
from ipc.channel import Channel, Gatekeeper
from ipc.errors import PeerGone
from ipc.links import CONTROL, LINKS, SUPERVISOR_WORKER, Link, links_of, socket_path
from ipc.loop import Loop
from ipc.messages import REGISTRY, CommandDone, HealthAnswer, HealthQuestion, ReloadCommand
from ipc.roles import Role, uid_of
from tests.ipc.values import sample

ALL_MESSAGES = frozenset(REGISTRY.values())
NUMBERS = {cls: number for number, cls in REGISTRY.items()}
ENDS = [pytest.param(link, role, id=f"{link.name}:{role}") for link in LINKS for role in (link.binder, link.connector)]
WAIT_S = 30.0


def lawless(link: Link) -> Link:
    """The same sockets, with an access list that lets everything pass: the side of a process that was broken into."""
    return Link(link.name, link.binder, link.connector, ALL_MESSAGES, ALL_MESSAGES)


@dataclass(slots=True)
class End:
    """One end of a link under test, and all that it has received."""

    channel: Channel
    gatekeeper: Gatekeeper
    received: list[object]
    refusals: list[str]
    connected: list[bytes]


class Wire:
    """Both ends of links, in one loop, each end with a ZeroMQ context of its own as in real life."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop()
        self.directory = directory
        self._contexts: list[zmq.Context[zmq.Socket[bytes]]] = []
        self._closers: list[Callable[[], None]] = []
        (directory / "links").mkdir()

    def open(self, link: Link, role: Role, uids: frozenset[int] = frozenset({os.getuid()})) -> End:
        """Opens an end that lets in `uids`: the tests' own, since both ends are this process."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        gatekeeper = Gatekeeper(context, self.loop)
        received: list[object] = []
        refusals: list[str] = []
        connected: list[bytes] = []

        def take(message: Any, _peer: bytes) -> None:
            received.append(message)

        channel = Channel(
            context=context,
            loop=self.loop,
            gatekeeper=gatekeeper,
            link=link,
            role=role,
            run_directory=str(self.directory),
            handlers=dict.fromkeys(link.receivable(role), take),
            on_connected=connected.append,
            on_refused=lambda _link, reason, _peer: refusals.append(reason),
        )
        gatekeeper.expect(link, uids)
        self._contexts.append(context)
        self._closers += [channel.close, gatekeeper.close]
        return End(channel=channel, gatekeeper=gatekeeper, received=received, refusals=refusals, connected=connected)

    def until(self, condition: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
        """Goes round the loop until `condition` holds; False where it does not come to that."""
        deadline = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.loop.run_once(0.02)
        return True

    def close(self) -> None:
        for close in self._closers:
            close()
        for context in self._contexts:
            context.destroy(linger=0)


@pytest.fixture
def wire() -> Iterator[Wire]:
    # Not pytest's directory: it is too long for a socket's name, and shut to other uids.
    directory = Path(tempfile.mkdtemp(prefix="ipsecd-wire-"))
    directory.chmod(0o755)
    made = Wire(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


def open_both(wire: Wire, link: Link, honest: Role) -> tuple[End, End]:
    """(the honest end, the one that may say anything), connected."""
    other = link.connector if honest is link.binder else link.binder
    if honest is link.binder:
        one, peer = wire.open(link, honest), wire.open(lawless(link), other)
        assert wire.until(lambda: bool(one.connected))
    else:
        peer, one = wire.open(lawless(link), other), wire.open(link, honest)
        assert wire.until(lambda: bool(peer.connected))
    return one, peer


def test_a_binder_that_was_started_again_is_told_who_is_connected(wire: Wire) -> None:
    binder, connector = open_both(wire, SUPERVISOR_WORKER, Role.SUPERVISOR)
    for _ in range(3):
        known = binder.connected[0]
        binder.channel.close()
        binder = wire.open(SUPERVISOR_WORKER, Role.SUPERVISOR)
        assert wire.until(lambda: bool(binder.connected))  # noqa: B023 - called here only
        assert binder.connected == [known]
        binder.channel.send(HealthQuestion(sequence=1))
        assert wire.until(lambda: bool(connector.received))
        connector.received.clear()


def routing_id(end: End) -> bytes | None:
    """Where the binder sends to: needed on the link with many connectors."""
    return end.connected[0] if end.connected else None


@pytest.mark.parametrize(("link", "role"), ENDS)
def test_every_message_that_is_not_for_this_link_is_refused(wire: Wire, link: Link, role: Role) -> None:
    one, peer = open_both(wire, link, role)
    forbidden = sorted(ALL_MESSAGES - link.receivable(role), key=lambda cls: cls.__name__)
    allowed = sorted(link.receivable(role), key=lambda cls: cls.__name__)
    for cls in forbidden:
        peer.channel.send(sample(cls), routing_id(peer))
    assert wire.until(lambda: one.channel.refused == len(forbidden))
    assert not one.received
    assert [reason.split()[0] for reason in one.refusals] == [cls.__name__ for cls in forbidden]
    for cls in allowed:
        peer.channel.send(sample(cls), routing_id(peer))
    assert wire.until(lambda: len(one.received) == len(allowed))
    assert one.received == [sample(cls) for cls in allowed]
    assert one.channel.refused == len(forbidden)


@pytest.mark.parametrize(("link", "role"), ENDS)
def test_a_role_does_not_send_what_it_may_not(wire: Wire, link: Link, role: Role) -> None:
    end = wire.open(link, role)
    for cls in ALL_MESSAGES - link.sendable(role):
        with pytest.raises(TypeError, match="may not send"):
            end.channel.send(sample(cls))


@pytest.mark.parametrize(("link", "role"), ENDS)
def test_handlers_must_be_the_access_list(wire: Wire, link: Link, role: Role) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gatekeeper = Gatekeeper(context, wire.loop)
    receivable = set(link.receivable(role))
    stranger = next(iter(ALL_MESSAGES - receivable))
    for handlers in (receivable | {stranger}, receivable - {next(iter(receivable))}):
        with pytest.raises(TypeError, match="access list"):
            Channel(
                context=context,
                loop=wire.loop,
                gatekeeper=gatekeeper,
                link=link,
                role=role,
                run_directory="/nowhere",
                handlers=dict.fromkeys(handlers, lambda _message, _peer: None),
            )
    gatekeeper.close()
    context.term()


def raw_dealer(wire: Wire, link: Link) -> "zmq.Socket[bytes]":
    """A connector that speaks no language of ours."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.setsockopt_string(zmq.ZAP_DOMAIN, link.name)
    socket.connect("ipc://" + socket_path(str(wire.directory), link))
    return socket


@pytest.mark.parametrize(
    "frames",
    [[b"garbage"], [b"\x93\x01"], [b"a", b"b"], [codec.encode(HealthAnswer(sequence=1, refused_messages=0)), b"more"]],
    ids=["garbage", "cut short", "two frames", "a frame behind a message"],
)
def test_garbage_is_refused_and_the_next_message_arrives(wire: Wire, frames: list[bytes]) -> None:
    one = wire.open(SUPERVISOR_WORKER, Role.SUPERVISOR)
    socket = raw_dealer(wire, SUPERVISOR_WORKER)
    socket.send_multipart(frames)
    socket.send(codec.encode(HealthAnswer(sequence=7, refused_messages=0)))
    assert wire.until(lambda: bool(one.received))
    assert one.received == [HealthAnswer(sequence=7, refused_messages=0)]
    assert one.channel.refused == 1
    socket.close()


def test_a_message_longer_than_the_link_allows_does_not_get_through(wire: Wire) -> None:
    one = wire.open(CONTROL, Role.SUPERVISOR)
    socket = raw_dealer(wire, CONTROL)
    socket.send(bytes(25 * 1024 * 1024))
    assert not wire.until(lambda: bool(one.received or one.refusals), wait_s=0.5)
    socket.close()
    peer = wire.open(CONTROL, Role.IPSECCTL)
    peer.channel.send(ReloadCommand())
    assert wire.until(lambda: bool(one.received and one.connected))
    one.channel.send(CommandDone(exit_code=0, lines=()), one.connected[-1])
    assert wire.until(lambda: bool(peer.received))


def test_the_binder_knows_when_nobody_is_there(wire: Wire) -> None:
    one = wire.open(SUPERVISOR_WORKER, Role.SUPERVISOR)
    with pytest.raises(PeerGone):
        one.channel.send(HealthQuestion(sequence=1))
    assert one.channel.try_send(HealthQuestion(sequence=1)) is False


def test_a_successor_takes_the_place_of_a_connector_that_died(wire: Wire) -> None:
    one = wire.open(SUPERVISOR_WORKER, Role.SUPERVISOR)
    first = wire.open(SUPERVISOR_WORKER, Role.IKE_WORKER)
    assert wire.until(lambda: len(one.connected) == 1)
    second = wire.open(SUPERVISOR_WORKER, Role.IKE_WORKER)
    assert wire.until(lambda: len(one.connected) == 2)
    one.channel.send(HealthQuestion(sequence=9))
    assert wire.until(lambda: bool(second.received))
    assert not first.received


def test_a_uid_that_is_not_expected_is_not_let_in(wire: Wire) -> None:
    one = wire.open(CONTROL, Role.SUPERVISOR, uids=frozenset({os.getuid() + 1}))
    peer = wire.open(CONTROL, Role.IPSECCTL)
    peer.channel.try_send(ReloadCommand())
    assert wire.until(lambda: one.gatekeeper.refused > 0)
    assert not wire.until(lambda: bool(one.received or one.connected), wait_s=0.2)


def test_a_connector_does_not_speak_with_a_binder_of_another_uid(wire: Wire) -> None:
    one = wire.open(CONTROL, Role.SUPERVISOR)
    peer = wire.open(CONTROL, Role.IPSECCTL, uids=frozenset({os.getuid() + 1}))
    assert wire.until(lambda: peer.gatekeeper.refused > 0)
    assert not one.received


def test_admission_may_refuse_what_the_uid_allows(wire: Wire) -> None:
    one = wire.open(CONTROL, Role.SUPERVISOR)
    asked: list[tuple[str, int, int]] = []

    def refuse(link: str, uid: int, pid: int) -> bool:
        asked.append((link, uid, pid))
        return False

    one.gatekeeper.ask(refuse)
    wire.open(CONTROL, Role.IPSECCTL)
    assert wire.until(lambda: bool(asked))
    assert asked[0] == (CONTROL.name, os.getuid(), os.getpid())
    assert not wire.until(lambda: bool(one.connected), wait_s=0.2)


_STRANGER = """
import os, sys, zmq
uid, name, path, data = int(sys.argv[1]), sys.argv[2], sys.argv[3], bytes.fromhex(sys.argv[4])
os.setresuid(uid, uid, uid)
socket = zmq.Context().socket(zmq.DEALER)
socket.linger = 500
socket.setsockopt_string(zmq.ZAP_DOMAIN, name)
socket.connect("ipc://" + path)
socket.send(data)
socket.poll(1000)
"""


def send_as(uid: int, wire: Wire, link: Link, message: object) -> "subprocess.Popen[bytes]":
    """A process of another uid that sends `message` on `link`."""
    path = socket_path(str(wire.directory), link)
    os.chmod(path, 0o777)  # only the gatekeeper is to say no
    arguments = [str(uid), link.name, path, codec.encode(message).hex()]
    return subprocess.Popen([sys.executable, "-c", _STRANGER, *arguments], stdin=subprocess.DEVNULL)


@pytest.mark.root
@pytest.mark.parametrize("uid", [12345, uid_of(Role.POLICY_LOADER)], ids=["a stranger", "another role"])
def test_another_uid_is_refused_by_what_the_kernel_says_of_it(wire: Wire, uid: int) -> None:
    worker = uid_of(Role.IKE_WORKER)
    one = wire.open(SUPERVISOR_WORKER, Role.SUPERVISOR, uids=frozenset({worker}))
    stranger = send_as(uid, wire, SUPERVISOR_WORKER, HealthAnswer(sequence=1, refused_messages=0))
    assert wire.until(lambda: one.gatekeeper.refused > 0)
    assert not one.received
    assert stranger.wait(10) == 0
    own = send_as(worker, wire, SUPERVISOR_WORKER, HealthAnswer(sequence=2, refused_messages=0))
    assert wire.until(lambda: bool(one.received))
    assert one.received == [HealthAnswer(sequence=2, refused_messages=0)]
    assert own.wait(10) == 0


def test_links_name_two_different_roles_and_each_its_own_socket() -> None:
    assert len({link.name for link in LINKS}) == len(LINKS)
    for link in LINKS:
        assert link.binder is not link.connector
        assert link in links_of(link.binder)
        assert link in links_of(link.connector)


def test_every_message_may_be_said_somewhere() -> None:
    said = frozenset[type]().union(*(link.from_binder | link.from_connector for link in LINKS))
    assert said == ALL_MESSAGES


def test_only_the_loader_and_the_supervisor_ever_hear_of_long_term_secrets() -> None:
    for cls in REGISTRY.values():
        if cls.__name__ not in ("ParsePolicy", "CredentialContent"):
            continue
        hearers = {role for link in LINKS for role in (link.binder, link.connector) if cls in link.receivable(role)}
        assert hearers == {Role.POLICY_LOADER}

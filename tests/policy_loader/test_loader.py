"""The loader between a supervisor, an agent and a worker that are played by the test: no socket, and time on demand."""

import dataclasses
import ipaddress
import logging
from typing import cast

import pytest

from ipc import messages as m
from ipc.algorithms import PrfId
from ipc.types import Secret
from policy_loader import native
from policy_loader.loader import ANSWER_WAIT_S
from tests.policy_loader.loader_world import (
    CHANGED_POLICY,
    FILE_POLICY,
    FILE_PSK,
    POLICY,
    PSK,
    World,
    generations,
    only,
    rules_of,
)


@pytest.fixture
def world() -> World:
    return World()


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


# ----------------------------------------------------------------- checking


def test_a_policy_is_parsed_only_when_the_agent_found_that_the_kernel_would_take_it(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    assert world.parse(2, CHANGED_POLICY) == []
    begin, *_, commit = world.agent.take()
    assert isinstance(begin, m.BeginPolicy)
    assert (begin.generation, begin.check_only) == (2, True)
    assert commit == m.CommitPolicy(generation=2, rules=2)
    world.agent.deliver(m.PolicyInstalled(generation=2))
    assert only(world.supervisor.take(), m.PolicyParsed).generation == 2
    assert world.worker.take() == []
    assert world.loop.pending() == 0
    assert [one.check_only for one in world.enforce(2) if isinstance(one, m.BeginPolicy)] == [False]


def test_a_policy_that_is_the_same_for_the_kernel_need_not_be_checked(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    assert only(world.parse(2, POLICY + "# a comment"), m.PolicyParsed).generation == 2
    assert world.agent.take() == []


def test_a_policy_that_the_kernel_would_not_take_is_refused_before_anything_is_touched(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    world.parse(2, CHANGED_POLICY)
    world.agent.take()
    world.agent.deliver(m.PolicyNotInstalled(generation=2, reason="no interface eth7"))
    assert only(world.supervisor.take(), m.PolicyRefused).errors == ("no interface eth7",)
    assert world.enforce(2) == []
    assert only(world.supervisor.take(), m.PolicyNotEnforced).generation == 2
    world.worker.connect()
    assert generations(world.worker.take()) == [1]
    assert world.loop.pending() == 0


def test_an_agent_that_does_not_say_whether_it_would_take_it_refuses_it(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    world.parse(2, CHANGED_POLICY)
    world.loop.advance(ANSWER_WAIT_S + 0.1)
    assert only(world.supervisor.take(), m.PolicyRefused).generation == 2
    world.agent.deliver(m.PolicyInstalled(generation=2))
    assert world.supervisor.take() == []
    world.agent.connected = False
    assert "the kernel agent can't be asked" in only(world.parse(3, CHANGED_POLICY), m.PolicyRefused).errors[0]
    assert world.loop.pending() == 0


def test_an_agent_that_restarts_while_it_is_asked_is_asked_again(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    world.parse(2, CHANGED_POLICY)
    world.agent.take()
    world.agent.deliver(m.NeedPolicy())
    begun = [one for one in world.agent.take() if isinstance(one, m.BeginPolicy)]
    assert [(one.generation, one.check_only) for one in begun] == [(1, False), (2, True)]


def test_a_newer_file_takes_the_place_of_one_that_the_agent_is_asked_about(world: World) -> None:
    world.put_in_force(1)
    world.answers_checks = False
    world.parse(2, CHANGED_POLICY)
    assert only(world.parse(3, CHANGED_POLICY), m.PolicyRefused).generation == 2
    world.agent.deliver(m.PolicyInstalled(generation=2))
    assert world.supervisor.take() == []
    world.agent.deliver(m.PolicyInstalled(generation=3))
    assert only(world.supervisor.take(), m.PolicyParsed).generation == 3


def test_what_is_parsed_is_told_with_what_it_changes(world: World) -> None:
    first = only(world.parse(1), m.PolicyParsed).changes
    assert (first.added, first.added_count, first.changed_count) == (("lan", "ssh"), 2, 0)
    world.put_in_force(1)
    more = '[[rules]]\nname = "dns"\naction = "bypass"\nprotocol = "udp"\n'
    told = only(world.parse(2, CHANGED_POLICY.replace('"ssh"', '"renamed"') + more), m.PolicyParsed).changes
    assert told == m.PolicyChanges(added=("dns",), changed=("lan",), added_count=1, changed_count=1, kept_count=1)
    gone = POLICY[: POLICY.index('[[rules]]\nname = "ssh"')].replace("hq.example.net", "other.example.net")
    told = only(world.parse(3, gone), m.PolicyParsed).changes
    assert (told.changed, told.removed, told.peers, told.peers_count) == (("lan",), ("ssh",), ("branch",), 1)


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


def test_the_worker_is_told_once_with_whom_another_key_is_shared(world: World) -> None:
    def told() -> m.AddPeer:
        return next(one for one in world.worker.take() if isinstance(one, m.AddPeer))

    world.put_in_force(1)
    for generation, anew in ((2, ("branch",)), (3, ())):
        world.parse(generation, POLICY.replace(PSK.decode(), "another pre-shared key"))
        world.enforce(generation)
        world.agent.deliver(m.PolicyInstalled(generation=generation))
        assert told().anew == anew
        world.worker.deliver(m.NeedPolicy())
        assert told().anew == ()


def test_a_plan_says_with_whom_another_key_is_shared(world: World) -> None:
    world.put_in_force(1)
    parsed = only(world.parse(2, POLICY.replace(PSK.decode(), "another pre-shared key")), m.PolicyParsed)
    assert (parsed.changes.renewed, parsed.changes.peers, parsed.changes.kept_count) == (("branch",), (), 2)


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
        reason = "" if valid else "its pre-shared key is not ours"
        assert world.worker.take() == [m.AuthVerified(request_id=10, valid=valid, reason=reason)]


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


HOST_POLICY = POLICY.replace("198.51.100.7", "branch.example.net")


def test_a_host_name_is_asked_for_and_its_address_is_the_peers(world: World) -> None:
    (question,) = world.parse(3, HOST_POLICY)
    assert isinstance(question, m.ResolveName)
    assert (question.generation, question.name) == (3, "branch.example.net")
    address = ipaddress.ip_address("198.51.100.9")
    world.supervisor.deliver(m.NameResolved(request_id=question.request_id, addresses=(address,), error=""))
    assert only(world.supervisor.take(), m.PolicyParsed).warnings == ()
    world.supervisor.deliver(m.EnforcePolicy(generation=3))
    rules = [rule for one in world.agent.take() if isinstance(one, m.AddPolicy) for rule in one.rules]
    assert [rule.peer_address for rule in rules] == [address, None]


def test_a_host_name_that_is_not_found_is_a_warning(world: World) -> None:
    (question,) = world.parse(1, HOST_POLICY)
    assert isinstance(question, m.ResolveName)
    world.supervisor.deliver(m.NameResolved(request_id=question.request_id, addresses=(), error="no such name"))
    (warning,) = only(world.supervisor.take(), m.PolicyParsed).warnings
    assert '"branch.example.net" is not found: no such name' in warning


def test_a_host_name_that_nobody_answers_for_is_an_error_in_time(world: World) -> None:
    world.parse(1, HOST_POLICY)
    world.loop.advance(ANSWER_WAIT_S)
    assert "branch.example.net" in only(world.supervisor.take(), m.PolicyRefused).errors[0]
    world.supervisor.deliver(m.NameResolved(request_id=1, addresses=(), error=""))
    assert world.supervisor.take() == []


def test_a_file_that_is_in_force_is_not_read_again_but_what_it_names_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = only(world.parse(1, FILE_POLICY), m.ReadCredential)
    world.credential(asked.request_id, FILE_PSK)
    world.enforce(1)
    world.agent.deliver(m.PolicyInstalled(generation=1))
    world.worker.take()
    world.supervisor.take()
    monkeypatch.setattr(native, "parse", lambda *_: pytest.fail("it was read again"))
    asked = only(world.parse(2, FILE_POLICY), m.ReadCredential)
    refused = only(world.credential(asked.request_id, b""), m.PolicyRefused)
    assert "the pre-shared key is empty" in refused.errors[0]
    before = auth(world)
    asked = only(world.parse(3, FILE_POLICY), m.ReadCredential)
    assert not only(
        world.credential(asked.request_id, b"another key, as long as it should be"), m.PolicyParsed
    ).warnings
    world.enforce(3)
    world.agent.deliver(m.PolicyInstalled(generation=3))
    world.supervisor.take()
    world.worker.take()
    assert auth(world) != before


def test_a_host_that_moves_is_a_change_of_a_file_that_is_the_same(world: World) -> None:
    for generation, last in ((1, 9), (2, 9), (3, 10)):
        (question,) = world.parse(generation, HOST_POLICY)
        assert isinstance(question, m.ResolveName)
        address = ipaddress.ip_address(f"198.51.100.{last}")
        world.supervisor.deliver(m.NameResolved(request_id=question.request_id, addresses=(address,), error=""))
        world.answer_check()
        changes = only(world.supervisor.take(), m.PolicyParsed).changes
        assert (changes.added, changes.changed) == {1: (("lan", "ssh"), ()), 2: ((), ()), 3: ((), ("lan",))}[generation]
        world.enforce(generation)
        world.agent.deliver(m.PolicyInstalled(generation=generation))
        world.supervisor.take()


@pytest.mark.parametrize(("mode", "uid"), [(0o640, 0), (0o600, 1000)])
def test_a_file_that_is_the_same_but_open_to_others_now_is_refused(world: World, mode: int, uid: int) -> None:
    world.put_in_force(1)
    assert only(world.parse(2, POLICY, mode, uid), m.PolicyRefused)


def test_t45_templates_come_with_the_policy_and_are_guarded_like_it(world: World) -> None:
    bare = POLICY.replace('unmatched = "bypass"\n', "")
    templates = Secret(b'[setup]\nunmatched = "bypass"\n')
    for mode, good in ((0o600, True), (0o644, False)):
        world.supervisor.deliver(
            m.ParsePolicy(
                generation=1,
                path="/etc/ipsec.spd",
                content=Secret(bare.encode()),
                mode=0o600,
                uid=0,
                templates_path="/etc/ipsec.templates",
                templates=templates,
                templates_mode=mode,
                templates_uid=0,
            )
        )
        (answer,) = world.supervisor.take()
        assert isinstance(answer, m.PolicyParsed) is good
        assert good or "/etc/ipsec.templates:1:1: file: mode is 0644" in cast(m.PolicyRefused, answer).errors[0]


def test_o26_fixed_keys_go_to_the_agent_alone(world: World) -> None:
    text = POLICY.replace(
        f'local_id = "hq.example.net"\nauth = "psk"\npsk = "{PSK.decode()}"',
        'local_address = "192.0.2.1"\nauth = "manual"\nalgorithm = "aes128-sha256"\nspi_in = 256\nspi_out = 257\n'
        f'key_in = "{"a1" * 48}"\nkey_out = "{"b2" * 48}"',
    )
    only(world.parse(1, text), m.PolicyParsed)
    world.supervisor.deliver(m.EnforcePolicy(generation=1))
    told = world.agent.take()
    assert [type(one) for one in told] == [m.BeginPolicy, m.AddPolicy, m.AddManualSas, m.CommitPolicy]
    sas = cast(m.AddManualSas, told[2]).sas
    assert [sa.spi for sa in sas] == [256, 257]
    world.agent.deliver(m.PolicyInstalled(generation=1))
    for one in world.worker.take():
        assert not isinstance(one, m.AddPeer | m.AddNegotiationRule)

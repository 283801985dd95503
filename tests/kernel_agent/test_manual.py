"""SAs with fixed keys: what the guard lets pass, and that nobody but the policy touches them (O26)."""

import dataclasses
from typing import Any

import pytest

from ipc import messages as m
from ipc.algorithms import AES128CBC, AES128GCM16, CHACHA20POLY1305, EsnId, EspProposal, IntegrityId
from ipc.messages import KernelRule, Sa
from ipc.types import Direction, Secret, Unmatched
from kernel_agent import guard
from kernel_agent.guard import Refused
from tests.kernel_agent.test_agent import USE, Conversation, acquire
from tests.kernel_agent.values import name_of, rule, sa, selector

CBC = EspProposal(
    encryption=(AES128CBC, AES128GCM16, CHACHA20POLY1305),
    integrity=(IntegrityId.HMAC_SHA2_256_128,),
    key_exchange=(),
    esn=(EsnId.NO_ESN, EsnId.ESN),
)


def manual_rule(rule_id: int = 1, **changes: Any) -> KernelRule:
    return dataclasses.replace(rule(rule_id, **changes), manual=True, esp_proposals=(CBC,))


def fixed(direction: Direction = Direction.OUT, spi: int = 0x1000, key: int = 7, **changes: Any) -> Sa:
    fields: dict[str, Any] = {
        "cipher": AES128CBC,
        "integrity": IntegrityId.HMAC_SHA2_256_128,
        "encryption_key": Secret(bytes([key]) * 16),
        "integrity_key": Secret(bytes([key + 1]) * 32),
        "esn": False,
        "replay_window_packets": 0,
    }
    return sa(direction, spi, **{**fields, **changes})


def commit(talk: Conversation, rules: tuple[KernelRule, ...], sas: tuple[Sa, ...], generation: int) -> object:
    begin = m.BeginPolicy(generation=generation, interfaces=(), unmatched=Unmatched.BYPASS)
    talk.agent.on_begin_policy(begin)
    talk.agent.on_add_policy(m.AddPolicy(generation=generation, rules=rules))
    talk.agent.on_add_manual_sas(m.AddManualSas(generation=generation, sas=sas))
    talk.agent.on_commit_policy(m.CommitPolicy(generation=generation, rules=len(rules)))
    return talk.loader[-1]


@pytest.fixture
def talk() -> Conversation:
    """An agent that enforces one rule with fixed keys."""
    made = Conversation()
    made.agent.on_use_data_path(USE)
    commit(made, (manual_rule(),), (fixed(Direction.IN), fixed(spi=0x2000)), 1)
    made.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
    made.worker.clear()
    return made


# ------------------------------------------------------------- the guard


def test_o26_fixed_keys_are_for_cbc_and_hmac_without_anti_replay() -> None:
    guard.check_manual_sas([fixed(Direction.IN), fixed()], {1: manual_rule()})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"esn": True}, "no anti-replay service and no ESN .RFC 4303"),
        ({"replay_window_packets": 64}, "no anti-replay service and no ESN"),
        ({"soft_lifetime_s": 5.0}, "no lifetime"),
        ({"hard_lifetime_bytes": 5}, "no lifetime"),
        ({"soft_lifetime_packets": 5}, "no lifetime"),
        ({"rule_id": 2}, "rule-2 has no fixed keys"),
        ({"rule_id": 3}, "no rule 3"),
        ({"spi": 255}, "out of range"),
        ({"local": (selector("10.1.0.0/16"),)}, "outside rule"),
        (
            {"cipher": AES128GCM16, "integrity": IntegrityId.NONE, "encryption_key": Secret(bytes(20))},
            "aes128gcm16 must not have a fixed key .RFC 8221",
        ),
        (
            {"cipher": CHACHA20POLY1305, "integrity": IntegrityId.NONE, "encryption_key": Secret(bytes(36))},
            "chacha20poly1305 must not have a fixed key",
        ),
    ],
)
def test_what_fixed_keys_must_not_be_is_refused_with_the_reason(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        guard.check_manual_sas([fixed(**changes)], {1: manual_rule(), 2: rule(2)})


def test_one_spi_is_not_for_two_sas() -> None:
    with pytest.raises(Refused, match=r"SPI 00001000 to \S+ is used twice"):
        guard.check_manual_sas([fixed(), fixed(key=9)], {1: manual_rule()})


# ------------------------------------------------------------- the worker has no say


def test_they_come_with_the_policy_and_no_worker(talk: Conversation) -> None:
    assert list(talk.path.sas.values()) == [fixed(Direction.IN), fixed(spi=0x2000)]
    talk.agent.acquired(acquire(1))
    talk.agent.expired(m.Expire(sa=name_of(fixed(spi=0x2000)), hard=False))
    moved = m.PeerMoved(sa=name_of(fixed(Direction.IN)), source=sa().source, source_port=61234)
    talk.agent.peer_moved(moved)
    assert talk.worker == []


def test_the_worker_can_not_add_delete_or_forget_them(talk: Conversation) -> None:
    before = dict(talk.path.sas)
    answer = talk.add(sa(spi=0x3000))
    assert isinstance(answer, m.SaRefused)
    assert "rule rule-1 has fixed keys: no SA of it comes from IKE" in answer.reason
    talk.agent.on_delete_sa(m.DeleteSa(request_id=6, sas=tuple(before)))
    talk.agent.on_sync_sa(m.SyncSa(sas=(fixed(spi=0x4000),), last=False))
    talk.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
    assert talk.path.sas == before


# ------------------------------------------------------------- reload


def test_a_reload_touches_only_those_that_change(talk: Conversation) -> None:
    talk.path.calls.clear()
    added = fixed(spi=0x5000, rule_id=2, remote=(selector("10.3.0.0/24"),))
    rules = (manual_rule(), manual_rule(2, remote=("10.3.0.0/24",)))
    commit(talk, rules, (fixed(Direction.IN), fixed(spi=0x2000), added), 2)
    assert talk.path.calls == [f"add {0x5000:x}"]
    talk.path.calls.clear()
    commit(talk, rules, (fixed(Direction.IN), fixed(spi=0x2000, key=50), added), 3)
    assert talk.path.calls == [f"delete {0x2000:x}", f"add {0x2000:x}"]
    assert talk.path.sas[name_of(fixed(spi=0x2000))] == fixed(spi=0x2000, key=50)
    commit(talk, rules[1:], (added,), 4)
    assert list(talk.path.sas.values()) == [added]


def test_one_that_the_rule_no_longer_has_goes(talk: Conversation) -> None:
    commit(talk, (manual_rule(),), (fixed(Direction.IN),), 2)
    assert list(talk.path.sas.values()) == [fixed(Direction.IN)]


def test_a_refused_policy_leaves_them_as_they_were(talk: Conversation) -> None:
    before = dict(talk.path.sas)
    talk.path.refuse_policies = "no memory"
    sas = (fixed(Direction.IN), fixed(spi=0x2000, key=50), fixed(spi=0x3000))
    assert commit(talk, (manual_rule(),), sas, 2) == m.PolicyNotInstalled(generation=2, reason="no memory")
    assert talk.path.sas == before


def test_what_the_kernel_refuses_refuses_the_policy(talk: Conversation) -> None:
    talk.path.refuse = "no such algorithm"
    answer = commit(talk, (manual_rule(),), (fixed(spi=0x3000),), 2)
    reason = "SAs with fixed keys are refused: no such algorithm"
    assert answer == m.PolicyNotInstalled(generation=2, reason=reason)


def test_the_spi_of_a_negotiated_sa_is_not_taken() -> None:
    talk = Conversation()
    talk.run()
    talk.add(sa(spi=0x1000))
    answer = commit(talk, (manual_rule(2),), (fixed(rule_id=2),), 2)
    assert isinstance(answer, m.PolicyNotInstalled)
    assert "SPI 00001000 to 10.9.0.2 is in use by rule rule-1" in answer.reason


def test_a_new_agent_leaves_them_alone(talk: Conversation) -> None:
    talk.restart()
    talk.agent.on_use_data_path(USE)
    talk.path.calls.clear()
    commit(talk, (manual_rule(),), (fixed(Direction.IN), fixed(spi=0x2000)), 1)
    talk.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
    assert talk.path.calls == []
    assert len(talk.path.sas) == 2


def test_keys_are_in_no_log_or_answer(talk: Conversation, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    commit(talk, (manual_rule(),), (fixed(spi=0x2000, key=50),), 2)
    assert bytes([50] * 16).hex() not in caplog.text + repr(talk.loader) + repr(talk.path.policy)

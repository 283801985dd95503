"""What the supervisor is told of the protect rules: each change once, in bounded messages."""

from ike_worker.rule_reports import REASON_CHARACTERS, RuleReports
from ipc import messages as m
from ipc.types import Mode, StartAction


def rule(name: str, peer: str = "branch") -> m.NegotiationRule:
    return m.NegotiationRule(
        rule_id=1,
        name=name,
        position=0,
        peer=peer,
        mode=Mode.TUNNEL,
        local=(),
        remote=(),
        esp_proposals=(),
        start=StartAction.ON_DEMAND,
        rekey_s=0.0,
        life_s=0.0,
    )


def reports(*names: str) -> RuleReports:
    made = RuleReports()
    made.set_policy(tuple(rule(name) for name in names))
    list(made.take())
    return made


def said(made: RuleReports) -> dict[str, str]:
    return {one.name: one.reason for message in made.take() for one in message.rules}


def test_a_policy_is_told_whole_and_only_its_first_message_voids_the_old_one() -> None:
    made = RuleReports()
    made.set_policy(tuple(rule(f"r{number}") for number in range(600)))
    messages = list(made.take())
    assert [len(one.rules) for one in messages] == [256, 256, 88]
    assert [one.fresh for one in messages] == [True, False, False]
    assert list(made.take()) == []


def test_a_policy_without_rules_voids_the_old_one_too() -> None:
    made = reports("lan")
    made.set_policy(())
    assert list(made.take()) == [m.RulesChanged(fresh=True, rules=())]


def test_a_failure_is_told_once_until_something_else_happens() -> None:
    made = reports("lan", "other")
    made.failed("branch", "lan", "no answer")
    assert said(made) == {"lan": "no answer"}
    made.failed("branch", "lan", "no answer")
    assert list(made.take()) == []
    made.established("lan")
    assert said(made) == {"lan": ""}
    made.closed("lan", "the peer deleted it")
    assert said(made) == {"lan": "the peer deleted it"}


def test_a_failure_of_the_peer_itself_is_one_of_all_its_rules() -> None:
    made = RuleReports()
    made.set_policy((rule("one"), rule("two"), rule("three", peer="hq")))
    list(made.take())
    made.failed("branch", "", "its AUTH is wrong")
    assert said(made) == {"one": "its AUTH is wrong", "two": "its AUTH is wrong"}
    made.failed("branch", "", "its AUTH is wrong")
    assert list(made.take()) == []


def test_a_rule_keeps_its_reason_over_a_new_policy_unless_its_peer_is_another() -> None:
    made = reports("lan", "moved")
    made.failed("branch", "lan", "no answer")
    made.failed("branch", "moved", "no answer")
    made.set_policy((rule("lan"), rule("moved", peer="hq"), rule("new")))
    assert said(made) == {"lan": "no answer", "moved": "", "new": ""}


def test_a_long_reason_is_cut_and_an_unknown_rule_is_nobodys() -> None:
    made = reports("lan")
    made.failed("branch", "lan", "x" * 10_000)
    assert said(made) == {"lan": "x" * REASON_CHARACTERS}
    made.failed("stranger", "nothing", "r")
    made.established("nothing")
    assert list(made.take()) == []

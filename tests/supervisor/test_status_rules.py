"""Protect rules without an SA, and why; roles that do not answer."""

import subprocess

from ipc import messages as m
from ipc.loop import Loop
from ipc.roles import Role
from ipc.types import StartAction
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.role_table import ROLE_TABLE
from supervisor.rules import Rules
from supervisor.status import role_findings, role_status
from supervisor.watchdog import INTERVAL_S, UNRESPONSIVE_S, Watchdog


def rule(name: str, start: StartAction = StartAction.ON_DEMAND, reason: str = "") -> m.RuleState:
    return m.RuleState(name=name, peer="branch", start=start, reason=reason)


def told(*rules: m.RuleState) -> Rules:
    made = Rules()
    made.change(m.RulesChanged(fresh=True, rules=rules))
    return made


def test_o10_only_rules_without_an_sa_are_down_in_the_order_of_the_policy() -> None:
    rules = told(rule("z"), rule("up"), rule("a"))
    assert [one.rule for one in rules.down({"up"})] == ["z", "a"]


def test_o10_the_reason_is_what_came_of_the_last_attempt() -> None:
    rules = told(rule("lan"))
    rules.change(m.RulesChanged(fresh=False, rules=(rule("lan", reason="the peer does not answer"),)))
    assert [one.reason for one in rules.down(())] == ["the peer does not answer"]


def test_o10_where_nothing_was_tried_the_reason_says_who_is_waited_for() -> None:
    rules = told(*(rule(start.name, start) for start in StartAction))
    assert {one.start: one.reason for one in rules.down(())} == {
        "on-demand": "no packet has wanted it yet",
        "at-start": "its negotiation has not ended yet",
        "respond-only": "the peer has not asked for it yet",
    }


def test_a_new_policy_makes_the_old_rules_void() -> None:
    rules = told(rule("old"))
    rules.change(m.RulesChanged(fresh=True, rules=(rule("new"),)))
    assert [one.rule for one in rules.down(())] == ["new"]


def worker() -> Child:
    """One that is up, whose process is not there to be looked at."""
    child = Child(ROLE_TABLE[-1], Loop(), lambda _row: subprocess.Popen([]), lambda _child: None)
    child.state = ChildState.UP
    return child


def test_o12_a_role_that_owes_an_answer_for_long_is_unresponsive() -> None:
    child = worker()
    busy = role_status(child, 0, 100.0, UNRESPONSIVE_S / 2)
    assert (busy.state, busy.silent_s) == ("up", UNRESPONSIVE_S / 2)
    silent = role_status(child, 0, 100.0, UNRESPONSIVE_S)
    assert silent.state == "unresponsive"


def test_how_long_an_answer_is_owed_is_known_between_two_questions() -> None:
    watchdog = Watchdog(lambda _role, _sequence: True)
    watchdog.watch(Role.IKE_WORKER)
    watchdog.watch(Role.KERNEL_AGENT)
    watchdog.tick(10.0)
    watchdog.answered(Role.KERNEL_AGENT, 1, 0)
    assert (watchdog.silent_s(Role.IKE_WORKER, 11.5), watchdog.silent_s(Role.KERNEL_AGENT, 11.5)) == (1.5, 0.0)
    watchdog.tick(10.0 + INTERVAL_S)
    assert watchdog.silent_s(Role.IKE_WORKER, 13.5) == 3.5
    assert watchdog.silent_s(Role.DATA_PATH, 13.5) == 0.0


def test_a_supervisor_that_stood_still_says_nothing_of_its_roles_silence() -> None:
    watchdog = Watchdog(lambda _role, _sequence: True)
    watchdog.watch(Role.IKE_WORKER)
    watchdog.tick(10.0)
    assert watchdog.silent_s(Role.IKE_WORKER, 3600.0) == 0.0


def test_findings_of_a_role_do_not_depend_on_a_process_that_has_just_ended() -> None:
    child = worker()
    assert list(role_findings(child, role_status(child, 0, 100.0))) == []


def test_o12_a_role_that_dies_again_and_again_is_reported_failed() -> None:
    child = worker()
    child.last_exit = "exit code 7"
    for _ in range(10):
        child._backoff.next_delay_s(0.1)
    (finding,) = role_findings(child, role_status(child, 0, 100.0))
    assert (finding.code, "exit code 7" in finding.sentence) == ("role-failed", True)

"""Health of the roles."""

import pytest

from ipc.roles import Role
from supervisor import watchdog as watchdog_module
from supervisor.watchdog import INTERVAL_S, Watchdog

WORKER, AGENT = Role.IKE_WORKER, Role.KERNEL_AGENT
SILENCE_S = 10.0


@pytest.fixture(autouse=True)
def ordinary_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "SILENCE_S", SILENCE_S)


class Asked:
    """Remembers the questions."""

    def __init__(self) -> None:
        self.questions: list[tuple[Role, int]] = []

    def __call__(self, role: Role, sequence: int) -> bool:
        self.questions.append((role, sequence))
        return True


def test_a_role_that_answers_is_left_alone() -> None:
    asked = Asked()
    watchdog = Watchdog(asked)
    watchdog.watch(WORKER)
    for turn in range(100):
        assert watchdog.tick(turn * INTERVAL_S) == ()
        watchdog.answered(WORKER, asked.questions[-1][1], turn)
    assert len(asked.questions) == 100
    assert watchdog.refused_messages(WORKER) == 99


def test_a_role_that_is_silent_for_ten_seconds_is_named_and_only_that_one() -> None:
    asked = Asked()
    watchdog = Watchdog(asked)
    watchdog.watch(WORKER)
    watchdog.watch(AGENT)
    silent_at = []
    for turn in range(8):
        now = turn * INTERVAL_S
        if WORKER in watchdog.tick(now):
            silent_at.append(now)
        watchdog.answered(AGENT, turn + 1, 0)
        assert watchdog.tick(now) in ((), (WORKER,))
    assert silent_at[0] == SILENCE_S


def test_a_new_process_owes_nothing_of_the_old_one() -> None:
    watchdog = Watchdog(Asked())
    watchdog.watch(WORKER)
    for turn in range(5):
        watchdog.tick(turn * INTERVAL_S)
    watchdog.watch(WORKER)
    assert watchdog.tick(SILENCE_S) == ()


def test_a_role_that_is_gone_is_not_asked() -> None:
    asked = Asked()
    watchdog = Watchdog(asked)
    watchdog.watch(WORKER)
    watchdog.forget(WORKER)
    assert watchdog.tick(0.0) == ()
    assert asked.questions == []
    watchdog.answered(WORKER, 1, 5)
    assert watchdog.refused_messages(WORKER) == 0


def test_an_answer_to_a_question_never_asked_counts_for_nothing() -> None:
    watchdog = Watchdog(Asked())
    watchdog.watch(WORKER)
    watchdog.tick(0.0)
    watchdog.answered(WORKER, 99, 0)
    assert [watchdog.tick(turn * INTERVAL_S) for turn in range(1, 6)][-1] == (WORKER,)


def test_a_supervisor_that_stood_still_blames_nobody() -> None:
    watchdog = Watchdog(Asked())
    watchdog.watch(WORKER)
    watchdog.tick(0.0)
    assert watchdog.tick(3600.0) == ()
    assert watchdog.tick(3600.0 + INTERVAL_S) == ()

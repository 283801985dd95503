"""How long status tells of policies that another program has changed."""

from ipc.messages import PolicyDrift
from supervisor.drift import SHOWN_S, Drift


class Clock:
    now = 100.0


def codes(drift: Drift) -> list[str]:
    return [finding.code for finding in drift.findings()]


def test_it_is_told_for_ten_minutes_with_what_differed_and_when() -> None:
    clock = Clock()
    drift = Drift(lambda: clock.now)
    assert codes(drift) == []
    drift.note(PolicyDrift(what="1 missing, such as a", failure=""))
    clock.now += 12
    (finding,) = drift.findings()
    assert finding.code == "drift"
    assert "not as installed: 1 missing, such as a; found 12 s ago, and was put right" in finding.sentence
    clock.now += SHOWN_S
    assert codes(drift) == []


def test_what_could_not_be_put_right_is_told_until_it_is() -> None:
    clock = Clock()
    drift = Drift(lambda: clock.now)
    drift.note(PolicyDrift(what="1 missing, such as a", failure="no memory"))
    clock.now += 2 * SHOWN_S
    (finding,) = drift.findings()
    assert "could not be put right: no memory" in finding.sentence
    drift.forget()
    assert codes(drift) == []

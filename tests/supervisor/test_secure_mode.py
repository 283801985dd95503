"""Secure mode as policies want it: entered, on trial, remembered, and left with what it was entered for."""

from pathlib import Path

import pytest

from ipc import kept
from ipc.types import Unmatched
from ipsecctl import processes
from ipsecctl import secure_mode as by_command
from supervisor import secure_mode

DISCARD, BYPASS = Unmatched.DISCARD, Unmatched.BYPASS


class Kernel:
    """Whether it blocks by default."""

    def __init__(self) -> None:
        self.on = False
        self.refuses = False

    def run(self, word: str) -> str:
        if self.refuses:
            raise secure_mode.NotChanged("the kernel says no")
        self.on = word == "on" or (word == "show" and self.on)
        return "on" if self.on else "off"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(secure_mode, "is_on", lambda: made.on)
    for module in (secure_mode, by_command):
        monkeypatch.setattr(module, "_run", made.run)
    monkeypatch.setattr(processes, "neighbour", lambda _: None)
    return made


@pytest.fixture
def instance(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def test_t33_discard_enters_the_mode_and_remembers_it_and_bypass_leaves_it_alone(kernel: Kernel, instance: str) -> None:
    assert secure_mode.follow(instance, BYPASS) == ()
    assert secure_mode.follow(instance, DISCARD) == (secure_mode.ENTERED,)
    assert (kernel.on, kept.is_secure(instance)) == (True, True)
    assert secure_mode.follow(instance, BYPASS) == (secure_mode.ENTERED_BESIDE_POLICY,)
    assert kernel.on


def test_what_was_entered_for_a_policy_that_nobody_confirmed_is_left_by_whoever_comes_next(
    kernel: Kernel, instance: str
) -> None:
    for end in (secure_mode.follow, lambda *_: (secure_mode.end_if_disabled(instance),)):
        assert secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=True) == (secure_mode.ENTERED,)
        assert (kernel.on, kept.is_secure(instance)) == (True, False)
        assert end(instance, BYPASS) == (kept.TRIAL_ENDED,)
        assert (kernel.on, kept.is_secure_on_trial(instance)) == (False, False)
    assert secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=True) == (secure_mode.ENTERED,)
    assert not by_command.stays_at_stop(instance)
    assert by_command.end_if_disabled(instance) == (kept.TRIAL_ENDED,)
    assert (kernel.on, kept.is_secure_on_trial(instance)) == (False, False)


def test_what_was_confirmed_or_asked_for_meanwhile_stays(kernel: Kernel, instance: str) -> None:
    secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=True)
    assert secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=False) == (secure_mode.ENTERED,)
    assert secure_mode.end_if_disabled(instance) == kept.SECURE_STAYS
    kept.forget_secure(instance)
    kernel.on = False
    secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=True)
    by_command.remember(instance)  # ipsecctl secure
    assert secure_mode.follow(instance, BYPASS) == (secure_mode.ENTERED_BESIDE_POLICY,)
    assert by_command.end_if_disabled(instance) == (kept.SECURE_STAYS,)
    assert kernel.on


def test_t34_t35_a_stop_leaves_the_mode_only_where_ipsecd_is_disabled(kernel: Kernel, instance: str) -> None:
    secure_mode.follow(instance, DISCARD)
    assert secure_mode.end_if_disabled(instance) == kept.SECURE_STAYS
    kept.set_enabled(instance, False)
    assert secure_mode.end_if_disabled(instance) == kept.SECURE_ENDED
    assert (kernel.on, kept.is_secure(instance)) == (False, False)


def test_a_kernel_that_refuses_is_a_warning_at_a_reload_and_an_error_at_a_start(kernel: Kernel, instance: str) -> None:
    kernel.refuses = True
    assert secure_mode.follow_reload(instance, DISCARD, to_be_confirmed=False) == ("warning: the kernel says no",)
    with pytest.raises(secure_mode.NotChanged):
        secure_mode.follow(instance, DISCARD)

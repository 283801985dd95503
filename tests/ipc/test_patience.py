"""The bounds of slow machines."""

from pathlib import Path

import pytest

from ipc.patience import VARIABLE, for_policy, for_policy_file, patient


@pytest.mark.parametrize(
    ("said", "bound"),
    [
        ("3", 30.0),
        ("1.5", 15.0),
        ("1000", 1000.0),
        ("0.1", 10.0),
        ("-2", 10.0),
        ("nan", 10.0),
        ("much", 10.0),
        ("", 10.0),
    ],
)
def test_bounds_grow_by_the_factor_that_is_said(monkeypatch: pytest.MonkeyPatch, said: str, bound: float) -> None:
    monkeypatch.setenv(VARIABLE, said)
    assert patient(10.0) == bound


def test_without_a_word_they_are_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert patient(10.0) == 10.0


def test_a_large_policy_adds_to_a_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert for_policy(10.0) == 10.0
    assert for_policy(10.0, rules=100_000) == 510.0
    assert for_policy(10.0, size_bytes=13_000_000) > 600.0
    policy = tmp_path / "ipsec.spd"
    assert for_policy_file(10.0, str(policy)) == 10.0
    policy.write_bytes(bytes(1_000_000))
    assert for_policy_file(10.0, str(policy)) == for_policy(10.0, size_bytes=1_000_000) == 60.0
    monkeypatch.setenv(VARIABLE, "2")
    assert for_policy_file(10.0, str(policy)) == 120.0

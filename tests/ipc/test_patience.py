"""The bounds of slow machines."""

import pytest

from ipc.patience import VARIABLE, patient


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

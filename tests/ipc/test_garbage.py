"""The search for garbage is off while a policy is made, and on again afterwards, whatever comes of it."""

import gc

import pytest

from ipc.garbage import uncollected
from policy_loader import policy_file
from policy_loader.errors import PolicyError


def test_it_is_off_inside_only() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_on_again_after_a_policy_that_is_refused() -> None:
    with pytest.raises(PolicyError):
        policy_file.read("x", b"nothing", 0o600, 0)
    assert gc.isenabled()


def test_what_was_made_inside_is_not_looked_through_at_the_end() -> None:
    gc.collect()
    with uncollected():
        made = [[number] for number in range(10_000)]
    assert gc.get_count()[0] < 1000
    assert gc.get_freeze_count() == 0
    assert all(gc.is_tracked(one) for one in made)

"""Policy files by example: each bad one with all that must be said of it, each good one with its warnings."""

from pathlib import Path

import pytest

from ipc import codec
from ipc.messages import AddNegotiationRule, AddPeer, AddPolicy
from ipc.types import Action
from policy_loader.errors import PolicyError
from tests.policy_loader.corpus_files import BAD, CORPUS, GOOD, load, written


def expected(path: Path) -> str:
    return path.with_suffix(".expected").read_text()


def test_the_corpus_is_there() -> None:
    assert len(GOOD) >= 5
    assert len(BAD) >= 60


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_all_its_errors(path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load(path)
    assert written(caught.value.complaints) == expected(path)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_no_error_shows_a_secret(path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load(path)
    said = f"{caught.value} {caught.value!r}"
    assert not [secret for secret in ("correct horse", "20260722", "shown", "of [several]") if secret in said]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_compiles_with_its_warnings(path: Path) -> None:
    assert written(load(path).warnings) == expected(path)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_a_good_file_compiles_to_fits_into_messages(path: Path) -> None:
    policy = load(path).policy
    for message in (
        AddPolicy(generation=1, rules=policy.kernel_rules),
        AddNegotiationRule(generation=1, rules=policy.negotiation_rules),
        AddPeer(generation=1, peers=policy.peers),
    ):
        assert codec.decode(codec.encode(message)) == message


def test_windows_line_ends_change_nothing_but_the_hash() -> None:
    policy = load(CORPUS / "good" / "windows-line-ends.spd").policy
    rule, unmatched = policy.kernel_rules
    assert (rule.name, str(rule.local[0])) == ("lan", "10.1.0.0/16")
    assert unmatched.action is Action.DISCARD

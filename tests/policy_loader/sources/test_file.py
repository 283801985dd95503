import pytest

from policy_loader.sources import file


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o000, 0o700])
def test_roots_own_closed_file_is_taken(mode: int) -> None:
    assert file.complaints(mode, 0) == ()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o640, "the group may read it (bit 0040)"),
        (0o620, "the group may write it (bit 0020)"),
        (0o610, "the group may execute it (bit 0010)"),
        (0o604, "others may read it (bit 0004)"),
        (0o602, "others may write it (bit 0002)"),
        (0o601, "others may execute it (bit 0001)"),
        (0o644, "mode is 0644: the group may read it (bit 0040), others may read it (bit 0004);"),
    ],
)
def test_the_bit_that_opens_a_file_is_named(mode: int, words: str) -> None:
    (complaint,) = file.complaints(mode, 0)
    assert words in complaint


def test_another_owner_is_named_and_both_faults_are_told() -> None:
    owner, mode = file.complaints(0o660, 1000)
    assert "uid 1000" in owner
    assert "0660" in mode

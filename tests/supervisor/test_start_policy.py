"""Which policy a start takes (T39), and in which order others are tried."""

from pathlib import Path

import pytest

from ipc.types import Secret
from supervisor.errors import FileMissing, FileRefused
from supervisor.files import FileContent
from supervisor.generations import Generations
from supervisor.start_policy import Candidate, StartPolicies


@pytest.fixture
def spd(tmp_path: Path) -> Path:
    return tmp_path / "ipsec.spd"


def policies(spd: Path, *, only_backup: bool = False) -> StartPolicies:
    return StartPolicies(Generations(str(spd)), only_backup=only_backup)


def text_of(candidate: Candidate | None) -> str:
    return "none" if candidate is None else candidate.file.content.reveal().decode()


def was_in_force(spd: Path, text: str) -> None:
    file = FileContent(path=str(spd), content=Secret(text.encode()), mode=0o600, uid=0)
    Generations(str(spd)).came_into_force(file, None)


def test_the_policy_file_is_taken_if_it_is_good(spd: Path) -> None:
    spd.write_text("file")
    Path(f"{spd}.bak").write_text("backup")
    first = policies(spd).first()
    assert (text_of(first), first.backup_reason) == ("file", "")


def test_t39_the_backup_comes_next_and_then_what_was_in_force_last(spd: Path) -> None:
    spd.write_text("file")
    Path(f"{spd}.bak").write_text("backup")
    was_in_force(spd, "last")
    start = policies(spd)
    start.first()
    second = start.after_refusal(("one", "two"))
    assert (text_of(second), second and second.backup_reason) == ("backup", f"{spd} was refused: one")
    assert text_of(start.after_refusal(("the backup is no good",))) == "last"
    assert start.after_refusal(("nor is this",)) is None
    assert start.errors == ("one", "two", "the backup is no good", "nor is this")


def test_t39_without_a_backup_what_was_in_force_last_is_taken(spd: Path) -> None:
    spd.write_text("file")
    was_in_force(spd, "last")
    start = policies(spd)
    start.first()
    assert text_of(start.after_refusal(("one",))) == "last"


def test_t39_without_anything_the_errors_remain(spd: Path) -> None:
    spd.write_text("file")
    start = policies(spd)
    start.first()
    assert start.after_refusal(("one",)) is None
    assert start.errors == ("one",)


def test_t39_a_file_that_can_not_even_be_read_gives_way_too(spd: Path) -> None:
    spd.symlink_to("/dev/null")
    with pytest.raises(FileRefused, match="symbolic link"):
        policies(spd).first()
    Path(f"{spd}.bak").write_text("backup")
    first = policies(spd).first()
    assert text_of(first) == "backup"
    assert "symbolic link" in first.backup_reason


def test_a_missing_file_is_replaced_by_nothing(spd: Path) -> None:
    Path(f"{spd}.bak").write_text("backup")
    with pytest.raises(FileMissing):
        policies(spd).first()


def test_t2_t3_the_option_b_takes_the_backup_and_only_that(spd: Path) -> None:
    spd.write_text("file")
    with pytest.raises(FileMissing, match=r"ipsec\.spd\.bak"):
        policies(spd, only_backup=True).first()
    Path(f"{spd}.bak").write_text("backup")
    start = policies(spd, only_backup=True)
    assert text_of(start.first()) == "backup"
    assert start.after_refusal(("no good",)) is None


def test_a_file_that_was_not_confirmed_is_taken_only_if_there_is_no_other(spd: Path) -> None:
    spd.write_text("file")
    before = FileContent(path=str(spd), content=Secret(b"before"), mode=0o600, uid=0)
    keeper = Generations(str(spd))
    now = FileContent(path=str(spd), content=Secret(b"file"), mode=0o600, uid=0)
    keeper.mark_unconfirmed(now, before)
    first = policies(spd).first()
    assert (text_of(first), "was not" in first.backup_reason) == ("before", True)
    spd.write_text("edited since")
    assert text_of(policies(spd).first()) == "edited since"

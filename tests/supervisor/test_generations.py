"""The backup and the generations of a policy file, and the mark of one that nobody confirmed."""

import os
import stat
from pathlib import Path

import pytest

from ipc.generations import Generation, generations
from ipc.types import Secret
from supervisor.errors import FileRefused
from supervisor.files import FileContent, Replacement, read_policy, replace_file
from supervisor.generations import KEPT, Generations, digest


@pytest.fixture
def spd(tmp_path: Path) -> Path:
    path = tmp_path / "ipsec.spd"
    path.write_text("one")
    path.chmod(0o600)
    return path


def file(spd: Path, text: str, templates: str | None = None) -> FileContent:
    beside = None
    if templates is not None:
        beside = FileContent(path=str(spd.with_name("ipsec.templates")), content=_secret(templates), mode=0o600, uid=0)
    return FileContent(path=str(spd), content=_secret(text), mode=0o600, uid=0, templates=beside)


def _secret(text: str) -> Secret:
    return Secret(text.encode())


def kept(spd: Path) -> list[str]:
    return [Path(one.path).read_text() for one in generations(str(spd))]


def test_t40_what_was_in_force_before_becomes_the_backup_and_the_rest_is_kept(spd: Path) -> None:
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "one"), None)
    assert not os.path.exists(keeper.backup_path)
    keeper.came_into_force(file(spd, "two"), file(spd, "one"))
    keeper.came_into_force(file(spd, "three"), file(spd, "two"))
    assert (Path(keeper.backup_path).read_text(), kept(spd)) == ("two", ["one", "two", "three"])
    assert (keeper.number, keeper.problem) == (3, "")


def test_t40_a_policy_that_is_loaded_again_is_no_change(spd: Path) -> None:
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "one"), None)
    keeper.came_into_force(file(spd, "two"), file(spd, "one"))
    keeper.came_into_force(file(spd, "two"), file(spd, "two"))
    assert (Path(keeper.backup_path).read_text(), kept(spd), keeper.number) == ("one", ["one", "two"], 2)


def test_t40_other_templates_are_another_policy(spd: Path) -> None:
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "one"), None)
    keeper.came_into_force(file(spd, "one", "shared"), file(spd, "one"))
    assert kept(spd) == ["one", "one"]
    templates = keeper.numbered(2).templates
    assert templates is not None
    assert templates.content.reveal() == b"shared"
    assert keeper.numbered(1).templates is None


def test_t40_all_of_it_is_roots_alone(spd: Path) -> None:
    umask = os.umask(0)
    try:
        keeper = Generations(str(spd))
        keeper.came_into_force(file(spd, "two", "shared"), file(spd, "one"))
    finally:
        os.umask(umask)
    found = [Path(keeper.backup_path), *Path(f"{spd}.generations").iterdir()]
    assert len(found) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert stat.S_IMODE(Path(f"{spd}.generations").stat().st_mode) == 0o700


def test_only_the_last_generations_are_kept_and_no_number_is_used_twice(spd: Path) -> None:
    keeper = Generations(str(spd))
    for number in range(1, KEPT + 4):
        keeper.came_into_force(file(spd, f"policy {number}", "shared"), None)
    numbers = [one.number for one in generations(str(spd))]
    assert numbers == list(range(4, KEPT + 4))
    assert len(list(Path(f"{spd}.generations").iterdir())) == 2 * KEPT
    assert Generations(str(spd)).numbered(4).content.reveal() == b"policy 4"


def test_a_generation_that_is_not_kept_is_refused_with_those_that_are(spd: Path) -> None:
    keeper = Generations(str(spd))
    with pytest.raises(FileRefused, match=r"generation 1 of .* is not kept; none is"):
        keeper.numbered(1)
    keeper.came_into_force(file(spd, "one"), None)
    with pytest.raises(FileRefused, match=r"generation 7 of .* is not kept; 1 to 1 are"):
        keeper.numbered(7)


def test_what_is_no_generation_is_not_taken_for_one(spd: Path) -> None:
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "one"), None)
    for name in ("unconfirmed", "000002-never.spd", "000003-20261122T000000Z.spd~", "000004-20269922T000000Z.spd"):
        Path(f"{spd}.generations", name).write_text("x")
    assert [one.number for one in generations(str(spd))] == [1]


def test_the_name_of_a_generation_has_its_time(spd: Path) -> None:
    Generations(str(spd)).came_into_force(file(spd, "one"), None)
    (only,) = generations(str(spd))
    facts = os.stat(only.path)
    assert abs(only.in_force_at - facts.st_mtime) < 60
    assert isinstance(only, Generation)


def test_a_directory_that_others_may_enter_is_not_used(spd: Path) -> None:
    Path(f"{spd}.generations").mkdir(mode=0o755)
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "one"), None)
    assert "must be root's alone (mode 0755" in keeper.problem
    assert (kept(spd), keeper.number) == ([], 0)


def test_a_full_disk_leaves_the_old_backup_whole(spd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Generations(str(spd))
    keeper.came_into_force(file(spd, "two"), file(spd, "one"))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    keeper.came_into_force(file(spd, "three"), file(spd, "two"))
    assert "No space left on device" in keeper.problem
    assert (Path(keeper.backup_path).read_text(), kept(spd)) == ("one", ["two"])
    assert sorted(path.name for path in spd.parent.iterdir() if path.is_file()) == ["ipsec.spd", "ipsec.spd.bak"]
    monkeypatch.undo()
    keeper.came_into_force(file(spd, "three"), file(spd, "two"))
    assert keeper.problem == ""


def test_a_file_is_replaced_as_a_whole_or_not_at_all(spd: Path) -> None:
    replacement = Replacement(str(spd), _secret("new"))
    assert spd.read_text() == "one"
    replacement.commit()
    assert spd.read_text() == "new"
    Replacement(str(spd), _secret("newer")).discard()
    assert spd.read_text() == "new"
    assert [path.name for path in spd.parent.iterdir()] == ["ipsec.spd"]


def test_a_link_in_the_place_of_a_new_file_is_not_followed(spd: Path) -> None:
    victim = spd.with_name("victim")
    victim.write_text("precious")
    spd.with_name(".ipsec.spd.bak.new").symlink_to(victim)
    replace_file(f"{spd}.bak", b"backup")
    assert victim.read_text() == "precious"
    assert spd.with_name("ipsec.spd.bak").read_text() == "backup"


def test_a_marked_policy_is_known_until_the_mark_is_gone(spd: Path) -> None:
    keeper = Generations(str(spd))
    keeper.mark_unconfirmed(file(spd, "two"), file(spd, "one"))
    assert kept(spd) == ["one"]
    later = Generations(str(spd))
    assert later.is_unconfirmed(file(spd, "two"))
    assert not later.is_unconfirmed(file(spd, "one"))
    assert not later.is_unconfirmed(file(spd, "two", "with templates"))
    later.clear_mark()
    later.clear_mark()
    assert not later.is_unconfirmed(file(spd, "two"))


def test_a_file_that_was_edited_is_kept_before_it_is_replaced(spd: Path) -> None:
    keeper = Generations(str(spd))
    assert keeper.rescue_edited(read_policy(str(spd))) == ""
    assert keeper.rescue_edited(file(spd, "something else")) == f"{spd} was not what ran: it is kept as {spd}.replaced"
    assert Path(f"{spd}.replaced").read_text() == "one"
    spd.unlink()
    assert keeper.rescue_edited(file(spd, "something else")) == ""


def test_contents_that_could_be_taken_apart_in_two_ways_differ(spd: Path) -> None:
    assert digest(file(spd, "ab", "c")) != digest(file(spd, "a", "bc"))
    assert digest(file(spd, "ab", "")) != digest(file(spd, "ab"))

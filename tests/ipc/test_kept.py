"""What is remembered across boots: root's alone, whole or not at all, and apart for each instance."""

import stat
from pathlib import Path

from ipc import kept


def test_secure_mode_is_remembered_and_forgotten(tmp_path: Path) -> None:
    instance = str(tmp_path / "run")
    assert not kept.is_secure(instance)
    kept.forget_secure(instance)
    for _ in range(2):
        kept.remember_secure(instance)
        assert kept.is_secure(instance)
    assert stat.S_IMODE((tmp_path / "run/kept").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run/kept/secure").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "run/kept").iterdir()] == ["secure"]
    kept.forget_secure(instance)
    assert not kept.is_secure(instance)


def test_secure_mode_is_on_trial_until_it_is_remembered_or_the_trial_ends(tmp_path: Path) -> None:
    instance = str(tmp_path / "run")
    kept.end_trial(instance)
    kept.try_secure(instance)
    assert kept.is_secure_on_trial(instance)
    kept.remember_secure(instance)
    assert not kept.is_secure_on_trial(instance), "somebody wants it, whatever becomes of the policy"
    kept.forget_secure(instance)
    kept.end_trial(instance)
    assert not kept.is_secure_on_trial(instance)


def test_neither_enabled_nor_disabled_until_it_is_told(tmp_path: Path) -> None:
    instance = str(tmp_path / "run")
    assert (kept.is_enabled(instance), kept.is_disabled(instance)) == (False, False)
    for enabled in (True, False, True):
        kept.set_enabled(instance, enabled)
        assert (kept.is_enabled(instance), kept.is_disabled(instance)) == (enabled, not enabled)
    (tmp_path / "run/kept/boot").write_text("maybe\n")
    assert (kept.is_enabled(instance), kept.is_disabled(instance)) == (False, False)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    instance = str(tmp_path / "run")
    kept.set_enabled(instance, True)
    (tmp_path / "elsewhere").write_text("disabled\n")
    (tmp_path / "run/kept/boot").unlink()
    (tmp_path / "run/kept/boot").symlink_to(tmp_path / "elsewhere")
    assert not kept.is_disabled(instance)
    kept.set_enabled(instance, True)
    assert (tmp_path / "elsewhere").read_text() == "disabled\n"


def test_the_default_instance_keeps_where_a_boot_does_not_clean_up() -> None:
    assert kept.directory("/run/ipsecd") == "/var/lib/ipsecd"
    assert kept.directory("/run/other") == "/run/other/kept"
    assert kept.unconfirmed("/run/ipsecd") == "/run/ipsecd/unconfirmed"

"""net.ipv4.ip_forward: set as the policy says, put back at the stop (row O22)."""

from pathlib import Path

import pytest

from ipc.types import IpForward
from supervisor import forwarding
from supervisor.forwarding import Forwarding


class Setting:
    """A file in place of the kernel's, and what was saved when."""

    def __init__(self, path: Path, present: str) -> None:
        self.path = path
        self.path.write_text(present + "\n")
        self.saved: list[tuple[str, str]] = []
        self.forwarding = Forwarding(self.save)

    def save(self) -> None:
        self.saved.append((self.forwarding.before, self.present))

    @property
    def present(self) -> str:
        return self.path.read_text().strip()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(forwarding, "IP_FORWARD", tmp_path / "ip_forward")
    return tmp_path / "ip_forward"


@pytest.mark.parametrize(("present", "wish", "value"), [("0", IpForward.ON, "1"), ("1", IpForward.OFF, "0")])
def test_o22_it_is_set_and_what_was_there_is_saved_first(path: Path, present: str, wish: IpForward, value: str) -> None:
    setting = Setting(path, present)
    setting.forwarding.want(wish)
    assert setting.present == value
    assert setting.saved == [(present, present)]
    assert setting.forwarding.put_back() == f"ip_forward is {present} again"
    assert setting.present == present
    assert setting.saved[-1] == ("", present)
    assert setting.forwarding.put_back() == ""


@pytest.mark.parametrize(
    ("present", "wish"), [("0", IpForward.OFF), ("1", IpForward.ON), ("0", IpForward.LEAVE), ("1", IpForward.LEAVE)]
)
def test_o22_what_is_so_already_is_not_touched(path: Path, present: str, wish: IpForward) -> None:
    setting = Setting(path, present)
    setting.forwarding.want(wish)
    assert (setting.present, setting.saved, setting.forwarding.put_back()) == (present, [], "")


def test_o22_a_reload_changes_the_setting_and_not_what_was_there_before(path: Path) -> None:
    setting = Setting(path, "0")
    setting.forwarding.want(IpForward.ON)
    setting.forwarding.want(IpForward.OFF)
    setting.forwarding.want(IpForward.ON)
    assert (setting.present, setting.forwarding.before) == ("1", "0")
    setting.forwarding.want(IpForward.LEAVE)
    assert (setting.present, setting.forwarding.before) == ("0", "")


def test_o22_what_can_not_be_saved_is_not_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(path, "0")

    def full() -> None:
        raise OSError("no space left")

    monkeypatch.setattr(setting.forwarding, "_save", full)
    with pytest.raises(OSError, match="no space"):
        setting.forwarding.want(IpForward.ON)
    assert setting.present == "0"

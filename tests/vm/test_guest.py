"""The guest itself: what a kernel with ESP must do before anything of ours is tried on it."""

import json
import sys
from pathlib import Path

import pytest

from ipc.algorithms import CIPHER_NAMES
from tests.lab.debian import CHECKOUT, Unavailable
from tests.lab.guest import DIED_EXIT, TIME_LIMIT_EXIT, GuestResult, run_in_guest

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(900)]
ADD_SA = (
    "ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x100 mode tunnel "
    "aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128"
)


def in_guest(script: str, *writable: Path, timeout_s: float = 60.0) -> GuestResult:
    """Runs a shell script in a guest, or skips."""
    try:
        return run_in_guest(["sh", "-c", script], writable=writable, timeout_s=timeout_s)
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_its_kernel_has_esp_for_every_cipher_and_what_is_done_in_it_comes_through(tmp_path: Path) -> None:
    """Output, errors, exit code and what is written to a folder that it is given; the rest is gone with it."""
    kept, lost = tmp_path / "kept", tmp_path / "lost"
    kept.mkdir()
    result = in_guest(
        f"""
        {ADD_SA} && ip xfrm state > {kept}/state
        cd {CHECKOUT} && {sys.executable} -m kernel_agent.abilities > {kept}/abilities
        touch {lost} && ls {lost}
        echo complained >&2
        exit 7
        """,
        kept,
        timeout_s=180.0,
    )
    assert (result.exit_code, result.output, result.errors) == (7, f"{lost}\n", "complained\n"), result
    assert not lost.exists()
    assert "proto esp spi 0x00000100" in (kept / "state").read_text()
    # By our names for them.
    abilities = {one["name"]: one["detail"] for one in json.loads((kept / "abilities").read_text())}
    assert abilities["kernel-esp"].split(", ") == list(CIPHER_NAMES)


def test_its_time_is_limited() -> None:
    assert in_guest("sleep 100", timeout_s=8.0).exit_code == TIME_LIMIT_EXIT


def test_a_guest_that_dies_is_said_to_have_died() -> None:
    result = in_guest("echo o > /proc/sysrq-trigger; sleep 20")
    assert result.exit_code == DIED_EXIT

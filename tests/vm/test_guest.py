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


def in_guest(script: str, **options: float) -> GuestResult:
    """Runs a shell script in a guest, or skips."""
    try:
        return run_in_guest(["sh", "-c", script], timeout_s=options.get("timeout_s", 60.0))
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_its_kernel_has_esp() -> None:
    result = in_guest(f"{ADD_SA} && ip xfrm state")
    assert result.exit_code == 0, result
    assert "proto esp spi 0x00000100" in result.output


def test_output_errors_and_exit_code_come_through() -> None:
    result = in_guest("echo said; echo complained >&2; exit 7")
    assert (result.exit_code, result.output, result.errors) == (7, "said\n", "complained\n")


def test_what_it_writes_is_gone_with_it(tmp_path: Path) -> None:
    result = in_guest(f"touch {tmp_path}/made && ls {tmp_path}")
    assert result.output == "made\n"
    assert not (tmp_path / "made").exists()


def test_a_folder_that_it_is_given_is_written_for_good(tmp_path: Path) -> None:
    try:
        result = run_in_guest(["touch", str(tmp_path / "made")], writable=[tmp_path], timeout_s=60.0)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert result.exit_code == 0
    assert (tmp_path / "made").exists()


def test_its_time_is_limited() -> None:
    assert in_guest("sleep 100", timeout_s=8.0).exit_code == TIME_LIMIT_EXIT


def test_a_guest_that_dies_is_said_to_have_died() -> None:
    result = in_guest("echo o > /proc/sysrq-trigger; sleep 20")
    assert result.exit_code == DIED_EXIT


def test_its_kernel_takes_every_cipher_by_our_names_for_them() -> None:
    result = in_guest(f"cd {CHECKOUT} && {sys.executable} -m kernel_agent.abilities", timeout_s=120.0)
    assert result.exit_code == 0, result
    abilities = {one["name"]: one["detail"] for one in json.loads(result.output)}
    assert abilities["kernel-esp"].split(", ") == list(CIPHER_NAMES)

"""What needs the kernel's ESP, in a guest whose kernel has it: pytest runs it there, and nothing may be skipped."""

import sys
from pathlib import Path

import pytest

from ipc import patience
from tests.lab.debian import Unavailable, fetched
from tests.lab.guest import run_in_guest
from tests.lab.strongswan import PACKAGES

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1800)]
TUNNELS = Path(__file__).with_name("kernel_esp.py")
GUEST_WITHIN_S = 1500.0
SAS = Path(__file__).parents[1] / "kernel_agent" / "xfrm" / "test_sa_on_kernel_esp.py"


def run_tests(file: Path) -> None:
    """Runs a file of tests in the guest; all of them must pass there."""
    try:
        result = run_in_guest(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
            environment=[f"{patience.VARIABLE}=6"],  # a processor of its own kind, and shared with other tests
            timeout_s=GUEST_WITHIN_S,
            memory_mib=2048,
        )
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert result.exit_code == 0, result.output[-8000:] + result.errors[-2000:] + result.console[-1000:]
    assert " passed" in result.output
    assert " skipped" not in result.output


def test_sas_in_the_kernel() -> None:
    run_tests(SAS)


def test_tunnels_over_kernel_esp() -> None:
    try:
        fetched("strongswan", PACKAGES)  # the guest has no network to fetch it by
    except Unavailable as reason:
        pytest.skip(str(reason))
    run_tests(TUNNELS)

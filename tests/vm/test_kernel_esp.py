"""ipsecd over the kernel's ESP, in a guest whose kernel has it: pytest runs `kernel_esp.py` in there, once for all."""

import sys
from pathlib import Path

import pytest

from tests.lab.debian import Unavailable
from tests.lab.guest import run_in_guest
from tests.lab.strongswan import PACKAGES, fetched

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(400)]
TESTS = Path(__file__).with_name("kernel_esp.py")


def test_tunnels_over_kernel_esp() -> None:
    try:
        fetched("strongswan", PACKAGES)  # the guest has no network to fetch it by
        result = run_in_guest(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)],
            timeout_s=360.0,
            memory_mib=2048,
        )
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert result.exit_code == 0, result.output[-8000:] + result.errors[-2000:] + result.console[-1000:]
    assert " passed" in result.output

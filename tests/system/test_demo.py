"""`make demo` does what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
CHECKOUT = Path(__file__).parents[2]


def test_every_step_of_the_demo_is_so_and_nothing_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--back-within", "3"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none lost, the SPIs stayed" in done.stdout
    assert "nothing else" in done.stdout

"""Every file of the corpus, and a while of coverage-guided fuzzing from there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.corpus import inputs
from tests.fuzz.targets import TARGETS

SECONDS = 60 / len(TARGETS)
CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_known_breaks_nothing(target: str) -> None:
    known = inputs(target)
    assert known
    for data in known:
        TARGETS[target](data)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("target", TARGETS)
def test_a_search_for_what_breaks_it_finds_nothing(target: str, tmp_path: Path) -> None:
    limits = (f"-max_total_time={SECONDS:.0f}", "-max_len=4096", "-timeout=30", "-rss_limit_mb=1024")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", target, str(tmp_path / "corpus"), *limits],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " runs in " in done.stdout

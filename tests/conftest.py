"""What all tests share: which of them can run here, and how long things may take."""

import os
import shutil

import pytest
from hypothesis import settings

from ipc.patience import VARIABLE

# Several tests run at once on few cores.
os.environ.setdefault(VARIABLE, "3")
# The same examples in each run, however long one takes; `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")


@pytest.hookimpl(trylast=True)  # when it is known which are to run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with a reason, what needs root or tools that are not here; begins with what takes minutes."""
    items[:] = _long_ones_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    reason = _why_no_system_tests()
    if not reason:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if any(item.get_closest_marker(name) for name in ("root", "interop", "vm")):
            item.add_marker(skip)


def _long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker of pytest-xdist begins with a part of the list, all of a size: long tests stand first in each."""
    long = [item for item in items if item.get_closest_marker("vm") or item.path.name == "test_rounds.py"]
    others = [item for item in items if item not in long]
    ordered: list[pytest.Item] = []
    for number in range(workers):
        first = long[number::workers]
        size = (len(items) - len(ordered)) // (workers - number)
        ordered += first + others[: max(0, size - len(first))]
        del others[: max(0, size - len(first))]
    return ordered


def _why_no_system_tests() -> str:
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("ip", "ping") if shutil.which(tool) is None]
    return f"needs {' and '.join(missing)}" if missing else ""

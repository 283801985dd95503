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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with a reason, what needs root or tools that are not here."""
    reason = _why_no_system_tests()
    if not reason:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if any(item.get_closest_marker(name) for name in ("root", "interop", "vm")):
            item.add_marker(skip)


def _why_no_system_tests() -> str:
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("ip", "ping") if shutil.which(tool) is None]
    return f"needs {' and '.join(missing)}" if missing else ""

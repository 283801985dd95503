"""Running other parts of ipsecd as programs of their own."""

import os
import sys
from pathlib import Path

import ipc


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules with this Python; -P: nothing is imported from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Our own, with the place of our packages where they are not installed."""
    packages = str(Path(ipc.__path__[0]).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if packages not in sys.path or packages in paths or packages.endswith("-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([packages, *filter(None, paths)])}

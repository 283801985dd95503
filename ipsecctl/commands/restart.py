"""`ipsecctl restart`: stop, then start."""

import argparse
import json
from pathlib import Path

from ipsecctl.commands.start import start
from ipsecctl.commands.stop import stop


def run(options: argparse.Namespace) -> int:
    """Stops and starts the instance, with the policy file it had if no other is named; the exit code of the start."""
    spd = options.spd or _spd_path(options.instance)
    stop(options.instance)
    return start(options.instance, spd)


def _spd_path(instance: str) -> str | None:
    """The policy file of the running instance, from its saved information."""
    try:
        path = json.loads(Path(f"{instance}/state.json").read_text())["spd_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if isinstance(path, str) and path else None

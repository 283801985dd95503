"""`ipsecctl restart`: stop, then start. A policy file that is not good is found before anything is stopped."""

import argparse
import json
import os
from pathlib import Path

from ipsecctl import exit_codes
from ipsecctl.arguments import DEFAULT_SPD
from ipsecctl.commands.start import start
from ipsecctl.commands.stop import stop
from ipsecctl.policy_check import errors_of


def run(options: argparse.Namespace) -> int:
    """Stops and starts the instance, with the policy file it had if no other is named; the exit code of the start."""
    spd = os.path.abspath(options.spd or _spd_path(options.instance))
    errors = errors_of(spd)
    if errors:
        print(*errors, sep="\n")
        print("ipsecctl: not restarted: the policy file is not good")
        return exit_codes.STRANGE
    stop(options.instance)
    return start(options.instance, spd)


def _spd_path(instance: str) -> str:
    """The policy file of the running instance, from its saved information; the default one if there is none."""
    try:
        path = json.loads(Path(f"{instance}/state.json").read_text())["spd_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_SPD
    return path if isinstance(path, str) and path else DEFAULT_SPD

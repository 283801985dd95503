"""What `up`, `down`, `rekey`, `list`, `why` and `capture-keys` have in common: a wish to the worker, its answers."""

import argparse
import dataclasses
import json
from typing import Any

from ipc.messages import CommandDone
from ipc.wishes import OperatorCommand, OperatorVerb
from ipsecctl import exit_codes, lock_file
from ipsecctl.asker import asker
from ipsecctl.client import converse
from ipsecctl.errors import CommandError

GRACE_S = 10.0
"""So much later than the worker the supervisor may say that there is no answer."""
LONGEST_NAME = 128


def send(options: argparse.Namespace, verb: OperatorVerb, target: str) -> list[Any]:
    """All answers to a wish, in order; CommandError where it can't be asked or there is no answer."""
    if not 0 < options.timeout <= 3600:
        raise CommandError("--timeout is a number of seconds from 1 to 3600", exit_codes.USAGE)
    if len(target) > LONGEST_NAME:
        raise CommandError(f"no name is longer than {LONGEST_NAME} characters", exit_codes.USAGE)
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    command = OperatorCommand(verb=verb, target=target, timeout_s=options.timeout, asker=asker()[:LONGEST_NAME])
    return converse(options.instance, command, options.timeout + GRACE_S)


def carry_out(options: argparse.Namespace, verb: OperatorVerb, target: str) -> int:
    """A wish that is answered by what has come of it; the exit code."""
    return say(options, send(options, verb, target)[-1])


def say(options: argparse.Namespace, done: CommandDone) -> int:
    """Shows the end of a wish; the exit code."""
    if options.json:
        print(json.dumps({"done": done.exit_code == 0, "lines": done.lines}, indent=2))
    else:
        for line in done.lines:
            print(line)
    return done.exit_code


def plain(value: object) -> Any:
    """A value of messages for JSON: SPIs in hex, addresses and selectors as text."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=_text))  # type: ignore[call-overload]


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)

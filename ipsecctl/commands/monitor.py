"""`ipsecctl monitor`: what happens, as it happens, a line each, until it is interrupted."""

import argparse
import dataclasses
import json
import os
import sys
import time

from ipc import wishes as w
from ipsecctl import lock_file
from ipsecctl.client import listen
from ipsecctl.errors import CommandError


def run(options: argparse.Namespace) -> int:
    """Shows events; 0 after an interrupt, or `--count` events, 1 if the supervisor went away."""
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    left = options.count
    try:
        for batch in listen(options.instance, lambda: lock_file.look(options.instance).held):
            if batch.lost:
                show(options.json, _lost(batch.lost))
            for event in batch.events:
                show(options.json, event)
                left -= 1
                if left == 0:
                    return 0
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read our lines has enough of them: what is left goes nowhere, so that the exit has no complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    raise CommandError("IPsec is not running any more")


def _lost(count: int) -> w.LiveEvent:
    text = f"{count} events were lost: they were not read fast enough"
    return w.LiveEvent(at=time.time(), kind="events-lost", text=text)


def show(as_json: bool, event: w.LiveEvent) -> None:
    """One line."""
    if as_json:
        said = {name: value for name, value in dataclasses.asdict(event).items() if value != ""}
        print(json.dumps(said), flush=True)
    else:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
        reason = f": {event.reason}" if event.reason and event.reason not in event.text else ""
        print(f"{stamp} {event.kind}  {event.text}{reason}", flush=True)

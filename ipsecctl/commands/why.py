"""`ipsecctl why`: the last negotiation with a peer that failed, what differs, and what would have matched."""

import argparse
import json

from ipc import wishes as w
from ipc.messages import CommandDone
from ipsecctl.output import duration, table
from ipsecctl.wishes import plain, say, send


def run(options: argparse.Namespace) -> int:
    """Explains; 0 if there was an answer, also where nothing has failed."""
    answer = send(options, w.OperatorVerb.WHY, options.target)[-1]
    if isinstance(answer, CommandDone):
        return say(options, answer)
    if options.json:
        failure = plain(answer.failure)
        del failure["at"]
        print(json.dumps({**failure, "age_s": round(answer.age_s, 1)}, indent=2))
    else:
        print("\n".join(lines(answer)))
    return 0


def lines(told: w.FailureTold) -> list[str]:
    """A failure for people."""
    failure = told.failure
    of_rule = f", rule {failure.rule}" if failure.rule else ""
    who = failure.peer or "a stranger"
    if not failure.subject:
        return [f"{duration(told.age_s)} ago with {who} at {failure.remote}{of_rule}: {failure.sentence}"]
    refused = "the peer answered" if failure.by_peer else "we answered"
    shown = [
        f"{duration(told.age_s)} ago with {who} at {failure.remote}{of_rule}",
        f"{refused} {failure.notify} in {failure.exchange}",
        "",
    ]
    count = max(len(failure.ours), len(failure.theirs), 1)
    theirs = failure.theirs or ("(not said to us)" if failure.by_peer else "(none)",)
    rows = list(zip(_filled(failure.ours or ("(none)",), count), _filled(theirs, count), strict=True))
    shown += table((f"our {failure.subject}", f"their {failure.subject}"), rows)
    return [*shown, "", f"differs: {failure.difference}", f"remedy: {failure.remedy}"]


def _filled(items: tuple[str, ...], count: int) -> list[str]:
    return [*items, *([""] * (count - len(items)))]

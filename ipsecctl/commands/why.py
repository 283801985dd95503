"""`ipsecctl why`: the last negotiations with a peer that failed, what differs, and what would have matched."""

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
        shown = _plain(answer.failure, answer.age_s)
        shown["since_s"] = round(answer.since_s, 1)
        shown["earlier"] = [_plain(one.failure, one.age_s) for one in answer.earlier]
        print(json.dumps(shown, indent=2))
    else:
        print("\n".join(lines(answer)))
    return 0


def _plain(failure: w.Failure, age_s: float) -> dict[str, object]:
    shown = plain(failure)
    del shown["at"], shown["first_at"]
    return {**shown, "age_s": round(age_s, 1)}


def lines(told: w.FailureTold) -> list[str]:
    """Failures for people: the last one in full, of those before it when and what."""
    shown = _in_full(told)
    if told.earlier:
        rows = [(f"{duration(one.age_s)} ago", str(one.failure.times), _briefly(one.failure)) for one in told.earlier]
        shown += ["", *table(("before that", "times", "what"), rows)]
    return shown


def _briefly(failure: w.Failure) -> str:
    if not failure.subject:
        return failure.sentence
    by = "the peer" if failure.by_peer else "we"
    return f"{by} answered {failure.notify} in {failure.exchange}; {failure.difference}"


def _in_full(told: w.FailureTold) -> list[str]:
    failure = told.failure
    of_rule = f", rule {failure.rule}" if failure.rule else ""
    who = failure.peer or "a stranger"
    often = f" ({failure.times} times since {duration(told.since_s)} ago)" if failure.times > 1 else ""
    head = f"{duration(told.age_s)} ago{often} with {who} at {failure.remote}{of_rule}"
    if not failure.subject:
        return [f"{head}: {failure.sentence}"]
    refused = "the peer answered" if failure.by_peer else "we answered"
    shown = [head, f"{refused} {failure.notify} in {failure.exchange}", ""]
    count = max(len(failure.ours), len(failure.theirs), 1)
    theirs = failure.theirs or ("(not said to us)" if failure.by_peer else "(none)",)
    rows = list(zip(_filled(failure.ours or ("(none)",), count), _filled(theirs, count), strict=True))
    shown += table((f"our {failure.subject}", f"their {failure.subject}"), rows)
    return [*shown, "", f"differs: {failure.difference}", f"remedy: {failure.remedy}"]


def _filled(items: tuple[str, ...], count: int) -> list[str]:
    return [*items, *([""] * (count - len(items)))]

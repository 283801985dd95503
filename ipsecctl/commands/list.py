"""`ipsecctl list`: all IKE SAs and Child SAs, with traffic and what comes next."""

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any

from ipc import wishes as w
from ipc.messages import CommandDone
from ipsecctl.output import duration, size, table
from ipsecctl.wishes import say, send


def run(options: argparse.Namespace) -> int:
    """Lists; 0 if the worker has answered."""
    answers = send(options, w.OperatorVerb.LIST, "")
    if isinstance(answers[-1], CommandDone):
        return say(options, answers[-1])
    ike_sas = [sa for part in answers for sa in part.ike_sas]
    if options.json:
        print(json.dumps({"ike_sas": [as_json(sa) for sa in ike_sas]}, indent=2))
    else:
        print("\n".join(lines(ike_sas)))
    return 0


def as_json(sa: w.ListedIkeSa) -> dict[str, Any]:
    """An IKE SA as JSON has it."""
    status = sa.status
    return {
        "peer": status.peer,
        "state": status.state,
        "initiator": status.initiator,
        "spi_i": status.spi_i.hex(),
        "spi_r": status.spi_r.hex(),
        "local": status.local,
        "remote": status.remote,
        "algorithms": status.algorithms,
        "age_s": round(sa.age_s, 1),
        "rekey_in_s": _rounded(sa.rekey_in_s),
        "reauth_in_s": _rounded(sa.reauth_in_s),
        "children": [_child_as_json(child) for child in sa.children],
    }


def _child_as_json(child: w.ListedChildSa) -> dict[str, Any]:
    status = child.status
    return {
        "rule": status.rule,
        "state": child.state,
        "mode": status.mode.name.lower(),
        "spi_in": f"{status.spi_in:08x}",
        "spi_out": f"{status.spi_out:08x}",
        "algorithms": status.algorithms,
        "local": [str(one) for one in status.local],
        "remote": [str(one) for one in status.remote],
        "age_s": round(child.age_s, 1),
        "rekey_in_s": _rounded(child.rekey_in_s),
        "expires_in_s": _rounded(child.expires_in_s),
        "inbound": _traffic_as_json(child.inbound),
        "outbound": _traffic_as_json(child.outbound),
    }


def _traffic_as_json(traffic: w.Traffic | None) -> dict[str, Any] | None:
    if traffic is None:
        return None
    return {"packets": traffic.packets, "bytes": traffic.bytes, "idle_s": round(traffic.idle_s, 1)}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def lines(ike_sas: list[w.ListedIkeSa]) -> list[str]:
    """The SAs for people."""
    if not ike_sas:
        return ["no SAs"]
    header = ("peer", "state", "spi i", "spi r", "local", "remote", "algorithms", "age", "rekey in", "reauth in")
    rows = [
        (
            sa.status.peer,
            sa.status.state,
            sa.status.spi_i.hex(),
            sa.status.spi_r.hex(),
            sa.status.local,
            sa.status.remote,
            sa.status.algorithms,
            duration(sa.age_s),
            _until(sa.rekey_in_s),
            _until(sa.reauth_in_s),
        )
        for sa in ike_sas
    ]
    children = [child for sa in ike_sas for child in sa.children]
    shown = ["IKE SAs", *table(header, rows, "  "), ""]
    if not children:
        return [*shown, "no Child SAs"]
    header = ("rule", "state", "mode", "spi in", "spi out", "algorithms", "age", "rekey in", "in", "out")
    rows = [
        (
            child.status.rule,
            child.state,
            child.status.mode.name.lower(),
            f"{child.status.spi_in:08x}",
            f"{child.status.spi_out:08x}",
            child.status.algorithms,
            duration(child.age_s),
            _until(child.rekey_in_s),
            _carried(child.inbound),
            _carried(child.outbound),
        )
        for child in children
    ]
    shown += ["Child SAs", *table(header, rows, "  "), ""]
    selectors = [row for child in children for row in _selectors(child)]
    return [*shown, "traffic selectors", *table(("spi in", "local", "remote"), selectors, "  ")]


def _selectors(child: w.ListedChildSa) -> Iterator[tuple[str, str, str]]:
    """A line for each of the longer side; beside one another stand no pairs, but all of one side go with all others."""
    sides = (map(str, child.status.local), map(str, child.status.remote))
    name = f"{child.status.spi_in:08x}"
    for local, remote in itertools.zip_longest(*sides, fillvalue=""):
        yield name, local, remote
        name = ""


def _until(seconds: float | None) -> str:
    return "never" if seconds is None else duration(seconds)


def _carried(traffic: w.Traffic | None) -> str:
    return "not known" if traffic is None else f"{traffic.packets} packets, {size(traffic.bytes)}"

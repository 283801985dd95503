"""How long a policy of many rules takes from the file to the kernel, beside `ip -batch` and strongSwan.

Ours: a running instance in a namespace, all its processes at work; `ipsecctl reload` from a policy of one rule to one
of COUNT, the same again, again with one rule changed, and `ipsecctl stop`. `ip -batch` writes three policies a rule and
no more. strongSwan: a running charon, `swanctl --load-all` with COUNT connections that are trapped, which writes the
same three, and the same again. Times are wall time of the commands, processes of their own included. Where the kernel
has no ESP, ours writes six policies a rule, and routes.

Printed is a table: for each number of rules a line for ours and one for each of the others, with the policies that the
kernel had at the end and the seconds of each step: load (file to enforced policy), again (unchanged), change (one rule)
and stop; a dash where there is no such step. Below a line of the others stands how many times longer than ours it took.
What else the machine does is in all of them: compare lines of one run, not of two.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE, Namespace, gateways, run
from tests.lab.strongswan import Connection, StrongSwan

EXAMPLE = "example: python -m bench.policies --count 5000"
COUNTS = (1000, 5000, 10_000)
LARGE = 100_000
COMMAND_TIMEOUT_S = 600.0
OUR_END, THEIR_END = "10.9.0.1", "10.9.0.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds, by what was done."""

    what: str
    count: int
    policies: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nets:
    """The traffic of one rule."""

    local: str
    remote: str


def nets(number: int) -> Nets:
    """Rule `number`: every rule has nets of its own on both sides."""
    high, middle, low = number >> 16, number >> 8 & 255, number & 255
    return Nets(local=f"{20 + high}.{middle}.{low}.0/24", remote=f"{40 + high}.{middle}.{low}.0/24")


def spd(count: int, changed: int | None = None) -> str:
    """An SPD of `count` rules with one peer; rule `changed` is about another net."""
    lines = [
        f'[setup]\ninterfaces = ["{WIRE}"]\nunmatched = "bypass"\n',
        '[proposals.bench]\nike = ["aes256gcm16-prfsha256-x25519"]\nesp = ["aes256gcm16-esn"]\n',
        f'[peers.other]\naddress = "{THEIR_END}"\nlocal_address = "{OUR_END}"\nlocal_id = "left.example"\n'
        'remote_id = "right.example"\nauth = "psk"\npsk = "for measurements only, 8b1d77"\nproposals = "bench"\n',
    ]
    for number in range(count):
        pair = nets(number)
        remote = "192.0.2.0/24" if number == changed else pair.remote
        lines.append(
            f'[[rules]]\nname = "rule-{number}"\naction = "protect"\nlocal = ["{pair.local}"]\n'
            f'remote = ["{remote}"]\npeer = "other"\n'
        )
    return "\n".join(lines)


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_ours(count: int) -> Times:
    """A whole instance."""
    with gateways() as wire, Instance(wire.left) as instance:
        instance.start(spd(1))

        def reload(text: str) -> float:
            instance.write_spd(text)
            return timed(lambda: instance.ctl("reload", timeout_s=COMMAND_TIMEOUT_S))

        seconds = {"load": reload(spd(count)), "again": reload(spd(count)), "change": reload(spd(count, count // 2))}
        policies = policies_in(wire.left)
        seconds["stop"] = timed(lambda: instance.ctl("stop", timeout_s=COMMAND_TIMEOUT_S))
    return Times(what="ipsecd", count=count, policies=policies, seconds=seconds)


def measure_ip(count: int) -> Times:
    """`ip -batch`, the floor: no file to understand, no rule to compare."""
    with gateways() as wire, tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "batch"
        path.write_text("\n".join(line for number in range(count) for line in batch_lines(nets(number), number)))
        seconds = {"load": timed(lambda: wire.left.run("ip", "-batch", str(path), timeout_s=COMMAND_TIMEOUT_S))}
        policies = policies_in(wire.left)
    return Times(what="ip -batch", count=count, policies=policies, seconds=seconds)


def batch_lines(pair: Nets, number: int) -> Iterator[str]:
    """What the kernel's own ESP would need for one rule."""
    inward, outward = (pair.remote, pair.local), (pair.local, pair.remote)
    for direction, (source, destination) in (("out", outward), ("in", inward), ("fwd", inward)):
        ends = (OUR_END, THEIR_END) if direction == "out" else (THEIR_END, OUR_END)
        yield (
            f"xfrm policy add src {source} dst {destination} dir {direction} priority {number + 1} "
            f"tmpl src {ends[0]} dst {ends[1]} proto esp reqid {number + 1} mode tunnel"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traps(Connection):
    """Many connections to one peer, each of which waits for its first packet."""

    count: int

    def text(self) -> str:
        """As swanctl.conf."""
        children = "".join(
            f"  c{number} {{\n    version = 2\n    local_addrs = {self.local_address}\n"
            f"    remote_addrs = {self.remote_address}\n"
            f"    local {{\n      auth = psk\n      id = {self.local_id}\n    }}\n"
            f"    remote {{\n      auth = psk\n      id = {self.remote_id}\n    }}\n    children {{\n"
            f"      n{number} {{\n        local_ts = {nets(number).local}\n        remote_ts = {nets(number).remote}\n"
            f"        esp_proposals = aes256gcm16\n        start_action = trap\n      }}\n    }}\n  }}\n"
            for number in range(self.count)
        )
        return f'connections {{\n{children}}}\nsecrets {{\n  ike-peer {{\n    secret = "{self.psk}"\n  }}\n}}\n'


def measure_strongswan(count: int) -> Times:
    """charon with the kernel's policies; Unavailable where it can't be had."""

    def traps(number: int) -> Traps:
        return Traps(
            local_address=OUR_END,
            remote_address=THEIR_END,
            local_id="left.example",
            remote_id="right.example",
            psk="for measurements only, 8b1d77",
            local_net="",
            remote_net="",
            count=number,
        )

    with gateways() as wire, StrongSwan(wire.left, traps(1), kernel_esp=True, log_level=-1) as charon:
        charon.configure(traps(count).text())

        def load() -> float:
            return timed(lambda: charon.swanctl("--load-all", "--noprompt", timeout_s=COMMAND_TIMEOUT_S))

        seconds = {"load": load(), "again": load()}
        policies = policies_in(wire.left)
    return Times(what="strongSwan", count=count, policies=policies, seconds=seconds)


def policies_in(namespace: Namespace) -> int:
    """How many policies the kernel has there."""
    return sum(1 for line in namespace.ip("xfrm", "policy").splitlines() if line.startswith("src "))


def report(found: list[Times]) -> None:
    """A table, and how many times longer the others take."""
    steps = ("load", "again", "change", "stop")
    print(f"{'rules':>7} {'':<11} {'policies':>9}" + "".join(f"{step + ' s':>11}" for step in steps))
    for one in found:
        cells = "".join(f"{one.seconds[step]:>11.2f}" if step in one.seconds else f"{'-':>11}" for step in steps)
        print(f"{one.count:>7} {one.what:<11} {one.policies:>9}{cells}")
        ours = next(other for other in found if other.count == one.count and other.what == "ipsecd")
        if one is not ours:
            ratios = "".join(
                f"{one.seconds[step] / ours.seconds[step]:>10.1f}x" if step in one.seconds else f"{'':>11}"
                for step in steps
            )
            print(f"{'':>7} {'  to ours':<11} {'':>9}{ratios}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--count", type=int, action="append", help=f"rules; may be repeated {COUNTS}")
    parser.add_argument("--large", action="store_true", help=f"with {LARGE} rules too (takes minutes)")
    parser.add_argument("--ours", action="store_true", help="without the others")
    arguments = parser.parse_args()
    if os.geteuid():
        sys.exit("bench.policies: needs root, to make network namespaces")
    run(["ip", "-V"])
    found: list[Times] = []
    for count in (*(arguments.count or COUNTS), *((LARGE,) if arguments.large else ())):
        found.append(measure_ours(count))
        if arguments.ours:
            continue
        found.append(measure_ip(count))
        try:
            found.append(measure_strongswan(count))
        except Unavailable as error:
            print(f"without strongSwan: {error}", file=sys.stderr)
    report(found)


if __name__ == "__main__":
    main()

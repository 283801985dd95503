"""How long `ipsecctl status` takes, interpreter included, of a running and of a stopped instance.

Each run starts the interpreter anew, and one that does nothing in turn with it: the difference is what status costs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.lab.instance import IPSECCTL, Instance
from tests.lab.namespaces import Namespace, gateways
from tests.lab.spd import IPV4

EXAMPLE = "example: python -m bench.status --runs 50"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds of wall time."""

    status: list[float]
    nothing: list[float]

    def __str__(self) -> str:
        status, nothing = statistics.median(self.status), statistics.median(self.nothing)
        return (
            f"{status:.0f} ms (median of {len(self.status)}, fastest {min(self.status):.0f}); "
            f"python -c pass {nothing:.0f} ms; ratio {status / nothing:.2f}"
        )


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.status", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, for network namespaces")
    with gateways() as wire, Instance(wire.left) as instance:
        instance.start(IPV4.left_spd())
        print("running:", measure(wire.left, instance, arguments.runs))
        instance.stop()
        print("stopped:", measure(wire.left, instance, arguments.runs))
    return 0


def measure(namespace: Namespace, instance: Instance, runs: int) -> Times:
    """Times both commands in turn. They are run in the namespace; the time to enter it is not counted."""

    def run_all() -> Times:
        status = (sys.executable, str(IPSECCTL), "--instance", str(instance.directory), "status")
        times = Times(status=[], nothing=[])
        for _ in range(runs):
            times.status.append(milliseconds(status))
            times.nothing.append(milliseconds((sys.executable, "-c", "pass")))
        return times

    return namespace.call(run_all)


def milliseconds(command: tuple[str, ...]) -> float:
    """The wall time of one run; CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    sys.exit(main())

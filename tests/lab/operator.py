"""An operator at work: ipsecctl with its exit code, and the kernel objects of others that it must not touch."""

import subprocess
from dataclasses import dataclass

from ipc.ownership import XFRM_TAG_BASE
from tests.lab.instance import IPSECCTL, Instance
from tests.lab.namespaces import Namespace

COMMAND_TIMEOUT_S = 60.0
BYPASS_SPD = """\
[setup]
interfaces = ["lo"]
unmatched = "bypass"

[[rules]]
name = "all"
action = "bypass"
"""
"""The least that is a policy: quick to start, and its objects are in the kernel all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """What it said, line by line."""
        return self.text.splitlines()


def operate(instance: Instance, *arguments: str, before: tuple[str, ...] = ()) -> Said:
    """Runs ipsecctl on `instance` to its end; `before` is a command that runs it (unshare ...)."""
    done = subprocess.run(
        instance.namespace.command(*before, str(IPSECCTL), "--instance", str(instance.directory), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    return Said(code=done.returncode, text=done.stdout)


def add_foreign_objects(namespace: Namespace) -> None:
    """XFRM policies, an SA where the kernel takes one, a table and a route that are somebody else's."""
    for direction in ("out", "in"):
        namespace.ip(*_policy(direction, "192.0.2.0/24"))
    namespace.ip("route", "add", "198.51.100.0/24", "dev", "lo", "table", "77")
    namespace.ip("rule", "add", "from", "192.0.2.1", "table", "77", "preference", "77")
    namespace.run("nft", "add", "table", "inet", "somebody_elses", check=False)


def add_own_objects(namespace: Namespace) -> None:
    """A policy that bears our tag, as an instance that died leaves it."""
    namespace.ip(*_policy("out", "203.0.113.0/24"), "index", str(XFRM_TAG_BASE | 1 << 3 | 1))


def _policy(direction: str, prefix: str) -> list[str]:
    selector = ["src", prefix, "dst", "198.51.100.0/24", "dir", direction]
    return ["xfrm", "policy", "add", *selector, "action", "block"]

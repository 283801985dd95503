"""What all stand-ins share: every message of a link has a handler, most of which do nothing."""

from collections.abc import Mapping

from ipc.channel import Handler
from ipc.links import Link
from ipc.process import RoleProcess


def handlers(process: RoleProcess, link: Link, own: Mapping[type, Handler]) -> dict[type, Handler]:
    """`own`, and nothing for the rest of what `process` must be ready to hear on `link`."""
    life = {"HealthQuestion", "Stop"} if link.name.startswith("supervisor-") else set()
    silent = {kind: _ignore for kind in link.receivable(process.role) if kind.__name__ not in life}
    return {**silent, **own}


def _ignore(_message: object, _peer: bytes) -> None:
    """Not of interest to a stand-in."""

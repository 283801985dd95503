"""Two started instances at the two ends of a wire that is being captured: where most system tests begin."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.capture import Capture
from tests.lab.instance import Instance
from tests.lab.namespaces import Gateways, gateways
from tests.lab.spd import IPV4, Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """Left and right, and what was on the wire between them."""

    wire: Gateways
    left: Instance
    right: Instance
    capture: Capture


@contextlib.contextmanager
def two_instances(
    pair: Pair = IPV4, *, left_spd: str | None = None, right_spd: str | None = None, right_templates: str = ""
) -> Iterator[Two]:
    """Both ends of `pair`, started; an SPD of one's own may replace either. On failure it shows their logs."""
    with gateways() as wire, Capture(wire) as capture, Instance(wire.left) as left, Instance(wire.right) as right:
        try:
            if right_templates:
                right.write_templates(right_templates)
            right.start(right_spd if right_spd is not None else pair.right_spd())
            left.start(left_spd if left_spd is not None else pair.left_spd())
            yield Two(wire=wire, left=left, right=right, capture=capture)
        except BaseException:
            for instance in (left, right):
                print(f"--- log of {instance.namespace} ---\n{instance.log()[-6000:]}", file=sys.stderr)
            raise

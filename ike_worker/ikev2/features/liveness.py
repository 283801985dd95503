"""Is a silent peer alive? An empty INFORMATIONAL request asks. RFC 7296 section 2.4."""

import math

from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wish import Wish, WishKind

HINT_S = 5.0
"""An unprotected INVALID_IKE_SPI is a hint only, and taken once in this time (RFC 7296 section 2.21.4)."""


def question_due(sa: IkeSa) -> float:
    """When the peer must be asked; any request under way asks too."""
    if sa.state is not State.ESTABLISHED or not sa.peer.liveness_s or sa.window.pending or sa.window.preparing:
        return math.inf
    return sa.last_heard + sa.peer.liveness_s


def ask(sa: IkeSa) -> None:
    """Asks with the next request."""
    if not sa.wants(WishKind.LIVENESS):
        sa.wishes.append(Wish(kind=WishKind.LIVENESS))


def take_hint(sa: IkeSa, now: float) -> bool:
    """Somebody says that the peer has forgotten `sa`: asks it, if that has not just been done."""
    if sa.state is not State.ESTABLISHED or now - sa.last_heard < HINT_S:
        return False
    ask(sa)
    return True

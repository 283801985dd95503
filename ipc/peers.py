"""What a reload does to SAs with a peer, as loader and worker both see it (ipsecd(8), HUP)."""

import dataclasses

from ipc.messages import Peer


def goes_on(old: Peer, new: Peer | None) -> bool:
    """Whether an IKE SA that was made by `old` goes on under `new`: nothing that it was made by has changed.

    What may change is when it is rekeyed or asked for a sign of life and what follows then, and how the next ones are
    made. `policy_loader.compile.peer_fingerprint` leaves out the same.
    """
    return new is not None and new == dataclasses.replace(
        old,
        liveness_s=new.liveness_s,
        rekey_s=new.rekey_s,
        reauth_s=new.reauth_s,
        liveness_action=new.liveness_action,
        fragmentation=new.fragmentation,
        childless=new.childless,
    )

"""An IKE_SA_INIT request that a responder would gladly take: what a flood is made of."""

from ike_worker.ikev2.iana import ExchangeType
from ike_worker.ikev2.selection import offer_ike
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.message import encode_message
from ike_worker.ikev2.wire.nonce import Nonce
from ipc.algorithms import KeyExchangeId
from policy_loader.proposals import parse_ike
from tests.lab.spd import IPV4


def first_message() -> bytes:
    """With the proposal of `spd.IPV4`."""
    return encode_message(
        spi_i=b"initiatr",
        spi_r=bytes(8),
        exchange_type=ExchangeType.IKE_SA_INIT,
        initiator=True,
        response=False,
        message_id=0,
        payloads=[
            offer_ike((parse_ike(IPV4.ike),)),
            KeyExchangePayload(group=KeyExchangeId.X25519, data=bytes(range(1, 33))),
            Nonce(data=bytes(range(32))),
        ],
    )

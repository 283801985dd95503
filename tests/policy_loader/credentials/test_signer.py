"""AUTH (RFC 7296 section 2.15), against values that `openssl dgst -mac HMAC` computed step by step."""

import dataclasses
import ipaddress
from typing import Any

import pytest

from ipc.algorithms import PrfId
from ipc.messages import ComputeAuth, Peer, VerifyAuth
from ipc.types import AuthMethod, Identity, IdType, Secret
from policy_loader.credentials import signer

PSK = Secret(b"correct horse battery staple")
NONCE = bytes(range(32, 64))
LOCAL_ID = bytes((2, 0, 0, 0)) + b"hq.example.net"
REMOTE_ID = bytes((1, 0, 0, 0)) + bytes((198, 51, 100, 7))
INITIATOR, RESPONSE = 0x08, 0x20

OURS = {
    PrfId.HMAC_SHA2_256: "df6f853da00f8c2a5fe3955f67ae7f7835918832fc0573ccccaa19bd93341c2e",
    PrfId.HMAC_SHA2_384: "fccdb40e88e4b4bac18cdef2fb3065003dd857911692dc8d5bcc43d53eebbf9c"
    "68c0e49e5ce4f82351daf630eadee156",
    PrfId.HMAC_SHA2_512: "01be8f2b53d4b5448e2d5a88705ed8d5b32864db4f8e3a66821613ee30190291"
    "8d0f2eff296e1dd17a81d1b33f07ac072477ccbd308c0789a883dc0a1658086b",
}
THEIRS = bytes.fromhex("b50ed67ce00a4aeb9cf5f85f7e3f62fe4286d7cde1daa2284d02e9f542e660b3")

PEER = Peer(
    name="branch",
    address=ipaddress.ip_address("198.51.100.7"),
    local_address=None,
    local_id=Identity(type=IdType.FQDN, data=b"hq.example.net"),
    remote_id=Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 7))),
    auth=AuthMethod.PSK,
    ike_proposals=(),
    force_encapsulation=False,
    liveness_s=30.0,
    rekey_s=0.0,
)


def message(flags: int, *, exchange: int = 34, message_id: int = 0, version: int = 0x20, extra: int = 0) -> bytes:
    body = bytes(range(100))
    header = b"\x11" * 8 + b"\x22" * 8 + bytes((33, version, exchange, flags)) + message_id.to_bytes(4, "big")
    return header + (28 + len(body) + extra).to_bytes(4, "big") + body


def compute(prf: PrfId = PrfId.HMAC_SHA2_256) -> ComputeAuth:
    size = {PrfId.HMAC_SHA2_256: 32, PrfId.HMAC_SHA2_384: 48, PrfId.HMAC_SHA2_512: 64}[prf]
    return ComputeAuth(
        request_id=1,
        peer="branch",
        prf=prf,
        initiator=True,
        message=message(INITIATOR),
        nonce=NONCE,
        sk_p=Secret(b"\x5a" * size),
        id_payload=LOCAL_ID,
    )


VERIFY = VerifyAuth(
    request_id=1,
    peer="branch",
    prf=PrfId.HMAC_SHA2_256,
    initiator=False,
    message=message(RESPONSE),
    nonce=NONCE,
    sk_p=Secret(b"\xa5" * 32),
    id_payload=REMOTE_ID,
    method=AuthMethod.PSK,
    data=THEIRS,
)


@pytest.mark.parametrize("prf", list(PrfId))
def test_our_auth_is_that_of_rfc_7296(prf: PrfId) -> None:
    assert signer.compute_auth(compute(prf), PEER, PSK).hex() == OURS[prf]


def test_the_peers_auth_is_known_and_anything_else_is_not() -> None:
    assert signer.verify_auth(VERIFY, PEER, PSK) is True
    assert signer.verify_auth(VERIFY, PEER, Secret(b"another key")) is False
    for data in (THEIRS[:-1], THEIRS + b"\0", b"", bytes((THEIRS[0] ^ 1,)) + THEIRS[1:]):
        assert signer.verify_auth(dataclasses.replace(VERIFY, data=data), PEER, PSK) is False
    for change in ({"nonce": NONCE[::-1]}, {"sk_p": Secret(b"\xa6" * 32)}):
        assert signer.verify_auth(dataclasses.replace(VERIFY, **change), PEER, PSK) is False


def test_the_worker_cannot_have_the_peers_auth_made() -> None:
    request = dataclasses.replace(compute(), initiator=False, message=VERIFY.message, id_payload=REMOTE_ID)
    with pytest.raises(signer.RequestRefused, match="not our identity"):
        signer.compute_auth(request, PEER, PSK)


def test_another_than_the_peers_identity_is_not_looked_at() -> None:
    with pytest.raises(signer.RequestRefused, match=r"not the peer's identity, 198\.51\.100\.7"):
        signer.verify_auth(dataclasses.replace(VERIFY, id_payload=LOCAL_ID), PEER, PSK)


def test_only_a_shared_key_is_taken() -> None:
    with pytest.raises(signer.RequestRefused, match="by method 14"):
        signer.verify_auth(dataclasses.replace(VERIFY, method=14), PEER, PSK)


@pytest.mark.parametrize(
    "change",
    [
        {"id_payload": b""},
        {"id_payload": bytes((2, 0, 0, 1)) + b"hq.example.net"},
        {"id_payload": bytes((3, 0, 0, 0)) + b"hq.example.net"},
        {"id_payload": LOCAL_ID + b"\0"},
        {"nonce": NONCE[:15]},
        {"nonce": bytes(257)},
        {"sk_p": Secret(b"")},
        {"sk_p": Secret(bytes(48))},
        {"message": b""},
        {"message": message(INITIATOR)[:27]},
        {"message": message(INITIATOR)[:-1]},
        {"message": message(INITIATOR) + b"\0"},
        {"message": message(INITIATOR, extra=1)},
        {"message": message(INITIATOR, exchange=35)},
        {"message": message(INITIATOR, message_id=1)},
        {"message": message(INITIATOR, version=0x10)},
        {"message": message(RESPONSE)},
        {"message": message(INITIATOR | RESPONSE)},
        {"message": message(0)},
        {"initiator": False},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_request_that_is_not_for_an_ike_sa_init_of_ours_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(signer.RequestRefused):
        signer.compute_auth(dataclasses.replace(compute(), **change), PEER, PSK)

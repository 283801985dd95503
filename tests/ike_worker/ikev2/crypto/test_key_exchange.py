import random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ike_worker.ikev2.crypto.key_exchange import KeyExchange
from ike_worker.ikev2.errors import InvalidKeyExchange, LocalError
from ipc.algorithms import KeyExchangeId

X25519, ECP_256, ECP_384 = KeyExchangeId.X25519, KeyExchangeId.ECP_256, KeyExchangeId.ECP_384
GROUPS = [X25519, ECP_256, ECP_384]
PUBLIC_BYTES = {X25519: 32, ECP_256: 64, ECP_384: 96}

# Initiator's private and public value, responder's private and public value, shared secret
VECTORS = [
    # RFC 7748 section 6.1
    (
        X25519,
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
    # RFC 8031 appendix A
    (
        X25519,
        "751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94",
        "48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766",
        "0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688",
        "0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25",
        "c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950",
    ),
    # RFC 5903 section 8.1
    (
        ECP_256,
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
        "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
    # RFC 5903 section 8.2
    (
        ECP_384,
        "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
        "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
        "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
        "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
        "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571"
        "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
    ),
]


def from_private(group: KeyExchangeId, private: str) -> KeyExchange:
    """The key exchange whose random bytes give exactly this private value."""

    def random_bytes(size: int) -> bytes:
        if group is X25519:
            return bytes.fromhex(private)
        return (int(private, 16) - 1).to_bytes(size)

    return KeyExchange.generate(group, random_bytes)


@pytest.mark.parametrize("group, private_i, public_i, private_r, public_r, shared", VECTORS)
def test_the_vectors_of_the_rfcs(
    group: KeyExchangeId, private_i: str, public_i: str, private_r: str, public_r: str, shared: str
) -> None:
    initiator, responder = from_private(group, private_i), from_private(group, private_r)
    assert (initiator.group, initiator.public.hex()) == (group, public_i)
    assert responder.public.hex() == public_r
    assert initiator.shared_secret(responder.public).hex() == shared
    assert responder.shared_secret(initiator.public).hex() == shared


@pytest.mark.parametrize("group", GROUPS)
def test_the_same_random_bytes_give_the_same_key(group: KeyExchangeId) -> None:
    first, again = (KeyExchange.generate(group, random.Random(7).randbytes) for _ in range(2))
    other = KeyExchange.generate(group, random.Random(8).randbytes)
    assert first.public == again.public != other.public
    assert len(first.public) == PUBLIC_BYTES[group]


@pytest.mark.parametrize("group", [ECP_256, ECP_384])
@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_any_random_bytes_give_a_key_of_the_group(group: KeyExchangeId, byte: bytes) -> None:
    exchange = KeyExchange.generate(group, lambda size: byte * size)
    assert len(exchange.shared_secret(exchange.public)) == PUBLIC_BYTES[group] // 2


@pytest.mark.parametrize("group", GROUPS)
def test_a_public_value_of_a_wrong_length_is_refused(group: KeyExchangeId) -> None:
    exchange = KeyExchange.generate(group, random.Random(1).randbytes)
    for public in (b"", exchange.public[:-1], exchange.public + b"\0", b"\x04" + exchange.public, b"\x00"):
        with pytest.raises(InvalidKeyExchange):
            exchange.shared_secret(public)


@pytest.mark.parametrize("group", [ECP_256, ECP_384])
def test_a_point_that_is_not_on_the_curve_is_refused(group: KeyExchangeId) -> None:
    exchange = KeyExchange.generate(group, random.Random(1).randbytes)
    size = len(exchange.public)
    off_curve = exchange.public[:-1] + bytes((exchange.public[-1] ^ 1,))
    for public in (off_curve, bytes(size), b"\xff" * size):
        with pytest.raises(InvalidKeyExchange):
            exchange.shared_secret(public)


def test_a_compressed_point_is_refused() -> None:
    curve = ec.SECP256R1()
    exchange = KeyExchange.generate(ECP_256, random.Random(1).randbytes)
    with pytest.raises(InvalidKeyExchange):
        exchange.shared_secret(b"\x02" + exchange.public[: curve.key_size // 8])


# Points of small order: their product with any private key is zero (RFC 7748 section 6.1, RFC 8031 section 2).
@pytest.mark.parametrize(
    "public",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_an_all_zero_secret_is_refused(public: str) -> None:
    exchange = KeyExchange.generate(X25519, random.Random(1).randbytes)
    with pytest.raises(InvalidKeyExchange):
        exchange.shared_secret(bytes.fromhex(public))


@settings(max_examples=50, deadline=None)
@given(group=st.sampled_from(GROUPS), public=st.binary(max_size=100) | st.binary(min_size=64, max_size=64))
def test_arbitrary_bytes_give_a_secret_or_the_family_error(group: KeyExchangeId, public: bytes) -> None:
    exchange = KeyExchange.generate(group, random.Random(1).randbytes)
    try:
        assert len(exchange.shared_secret(public)) == (32 if group is X25519 else PUBLIC_BYTES[group] // 2)
    except InvalidKeyExchange:
        assert group is not X25519 or len(public) != 32 or public[:31] in (bytes(31), b"\x01" + bytes(30))


def test_no_method_is_our_own_error() -> None:
    with pytest.raises(LocalError):
        KeyExchange.generate(KeyExchangeId.NONE, bytes)

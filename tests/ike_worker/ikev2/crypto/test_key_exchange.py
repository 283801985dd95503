import random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ike_worker.ikev2.crypto.key_exchange import KeyExchange
from ike_worker.ikev2.crypto.modp import PRIMES
from ike_worker.ikev2.errors import InvalidKeyExchange, LocalError
from ipc.algorithms import KeyExchangeId

X25519, X448 = KeyExchangeId.X25519, KeyExchangeId.X448
ECP_256, ECP_384, ECP_521 = KeyExchangeId.ECP_256, KeyExchangeId.ECP_384, KeyExchangeId.ECP_521
MODP_1024, MODP_2048 = KeyExchangeId.MODP_1024, KeyExchangeId.MODP_2048
MODP = [MODP_1024, MODP_2048, KeyExchangeId.MODP_3072, KeyExchangeId.MODP_4096]
ECP = [ECP_256, ECP_384, ECP_521]
GROUPS = [X25519, X448, *ECP, *MODP]
PUBLIC_BYTES = {
    X25519: 32,
    X448: 56,
    ECP_256: 64,
    ECP_384: 96,
    ECP_521: 132,
    **dict(zip(MODP, (128, 256, 384, 512), strict=True)),
}
SECRET_BYTES = {**PUBLIC_BYTES, ECP_256: 32, ECP_384: 48, ECP_521: 66}

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
    # RFC 7748 section 6.2
    (
        X448,
        "9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf574a9419744897391006382a6f127ab1d9ac2d8c0a598726b",
        "9b08f7cc31b7e3e67d22d5aea121074a273bd2b83de09c63faa73d2c22c5d9bbc836647241d953d40c5b12da88120d53177f80e532c41fa0",
        "1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120bb5ee8972b0d3e21374c9c921b09d1b0366f10b65173992d",
        "3eb7a829b0cd20f5bcfc0b599b6feccf6da4627107bdb0d4f345b43027d8b972fc3e34fb4232a13ca706dcb57aec3dae07bdc1c67bf33609",
        "07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56fd2464c335543936521c24403085d59a449a5037514a879d",
    ),
    # RFC 5903 section 8.3
    (
        ECP_521,
        "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a0"
        "95aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d4a52",
        "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbe"
        "e1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4195d176ced3e"
        "017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4a10a"
        "d8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3926f9582",
        "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e"
        "9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb151685eb9",
        "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a21"
        "9b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9460f"
        "015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87"
        "220b6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd17f0fc56a",
        "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04"
        "d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3ddea",
    ),
]


def from_private(group: KeyExchangeId, private: str) -> KeyExchange:
    """The key exchange whose random bytes give exactly this private value."""

    def random_bytes(size: int) -> bytes:
        if group in (X25519, X448):
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


@pytest.mark.parametrize("group", [*ECP, *MODP])
@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_any_random_bytes_give_a_key_of_the_group(group: KeyExchangeId, byte: bytes) -> None:
    exchange = KeyExchange.generate(group, lambda size: byte * size)
    assert len(exchange.shared_secret(exchange.public)) == SECRET_BYTES[group]


@pytest.mark.parametrize("group", GROUPS)
def test_a_public_value_of_a_wrong_length_is_refused(group: KeyExchangeId) -> None:
    exchange = KeyExchange.generate(group, random.Random(1).randbytes)
    for public in (b"", exchange.public[:-1], exchange.public + b"\0", b"\x04" + exchange.public, b"\x00"):
        with pytest.raises(InvalidKeyExchange):
            exchange.shared_secret(public)


@pytest.mark.parametrize("group", ECP)
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
        assert len(exchange.shared_secret(public)) == SECRET_BYTES[group]
    except InvalidKeyExchange:
        # Nearly every string of the right length is a point of Curve25519.
        assert group is not X25519 or len(public) != 32 or public[:31] in (bytes(31), b"\x01" + bytes(30))


def test_a_small_order_point_of_curve448_is_refused() -> None:
    exchange = KeyExchange.generate(X448, random.Random(1).randbytes)
    for public in (bytes(56), b"\x01" + bytes(55)):
        with pytest.raises(InvalidKeyExchange):
            exchange.shared_secret(public)


# ------------------------------------------------------------------ MODP groups


def floor_of_pi(bits: int) -> int:
    """The integer part of 2^bits pi, by Machin's formula."""
    one = 1 << (bits + 64)

    def arctan_of_inverse(x: int) -> int:
        total = term = one // x
        divisor, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) >> 64


# RFC 2409 section 6.2 and RFC 3526 sections 3 to 5: 2^n - 2^(n-64) - 1 + 2^64 * ( [2^(n-130) pi] + k )
@pytest.mark.parametrize(
    ("group", "bits", "k"),
    list(zip(MODP, (1024, 2048, 3072, 4096), (129093, 124476, 1690314, 240904), strict=True)),
)
def test_the_primes_are_those_of_the_formulas_in_rfc_3526(group: KeyExchangeId, bits: int, k: int) -> None:
    assert PRIMES[group] == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (floor_of_pi(bits - 130) + k)


@pytest.mark.parametrize("group", MODP)
def test_modp_is_what_rfc_7296_section_2_14_says_zeros_in_front_included(group: KeyExchangeId) -> None:
    """Against plain arithmetic; of many exchanges some have a value that begins with a zero."""
    prime, size = PRIMES[group], PUBLIC_BYTES[group]
    chance = random.Random(int(group))
    for _ in range(300 if group in (MODP_1024, MODP_2048) else 10):
        own = KeyExchange.generate(group, chance.randbytes)
        other = KeyExchange.generate(group, chance.randbytes)
        shared = own.shared_secret(other.public)
        assert shared == other.shared_secret(own.public)
        assert len(own.public) == len(shared) == size
    drawn = random.Random(9).randbytes(100)
    mine = KeyExchange.generate(group, lambda count: drawn[:count])
    exponents = [
        e
        for e in range(30, 70)
        if pow(2, int.from_bytes(drawn[:e]) | 1 << (8 * e - 1), prime) == int.from_bytes(mine.public)
    ]
    assert len(exponents) == 1
    exponent = int.from_bytes(drawn[: exponents[0]]) | 1 << (8 * exponents[0] - 1)
    base = pow(2, 12345, prime)
    assert int.from_bytes(mine.shared_secret(base.to_bytes(size))) == pow(base, exponent, prime)


@pytest.mark.parametrize("group", MODP)
def test_a_modp_value_out_of_range_is_refused_as_rfc_6989_section_2_1_wants(group: KeyExchangeId) -> None:
    exchange = KeyExchange.generate(group, random.Random(1).randbytes)
    prime, size = PRIMES[group], PUBLIC_BYTES[group]
    for value in (0, 1, prime - 1, prime, prime + 1, 2 ** (8 * size) - 1):
        with pytest.raises(InvalidKeyExchange):
            exchange.shared_secret(value.to_bytes(size))


def test_no_method_is_our_own_error() -> None:
    with pytest.raises(LocalError):
        KeyExchange.generate(KeyExchangeId.NONE, bytes)

"""Which keys are taken, wherever they come from."""

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from policy_loader.credentials import keys
from tests.lab.pki import KINDS, some_key

NAMES = ("RSA-2048", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519", "Ed448")


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, NAMES, strict=True)))
def test_these_are_taken_and_have_a_name(kind: str, name: str) -> None:
    key = some_key(kind).public_key()
    assert keys.checked(key) is key
    assert keys.name_of(key) == name


def test_a_public_exponent_that_costs_too_much_is_refused() -> None:
    modulus = some_key("rsa").public_key().public_numbers().n  # type: ignore[union-attr]
    assert keys.checked(rsa.RSAPublicNumbers((1 << 63) + 1, modulus).public_key())
    with pytest.raises(ValueError, match="public exponent of more than 64 bits"):
        keys.checked(rsa.RSAPublicNumbers((1 << 64) + 1, modulus).public_key())


def test_what_is_too_short_or_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="an RSA key of 1024 bits"):
        keys.checked(rsa.generate_private_key(65537, 1024).public_key())
    with pytest.raises(ValueError, match="secp256k1"):
        keys.checked(ec.generate_private_key(ec.SECP256K1()).public_key())
    with pytest.raises(ValueError, match="not known here"):
        keys.checked(dsa.generate_private_key(2048).public_key())

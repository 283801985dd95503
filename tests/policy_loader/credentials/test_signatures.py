"""Signatures in AUTH payloads: RFC vectors, every kind of key, and what is refused."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding

from ipc.types import AuthMethod, SignatureHash
from policy_loader.credentials import keys, signatures
from policy_loader.credentials.signatures import SignatureRefused, SigningRules
from tests.lab.pki import KINDS, some_key

OCTETS = b"IKE_SA_INIT | nonce | prf(SK_p, ID)"
ALL = (2, 3, 4, 5)
RULES = SigningRules()
OLD = SigningRules(sha1=True)

# RFC 4754 section 8: the message is "abc"; w is the private key, the signature is r and then s.
RFC_4754 = {
    AuthMethod.ECDSA_P256: (
        ec.SECP256R1(),
        "DC51D3866A15BACDE33D96F992FCA99DA7E6EF0934E7097559C27F1614C88A7F",
        "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C"
        "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315",
    ),
    AuthMethod.ECDSA_P384: (
        ec.SECP384R1(),
        "0BEB646634BA87735D77AE4809A0EBEA865535DE4C1E1DCB692E84708E81A5AF62E528C38B2A81B35309668D73524D9F",
        "FB017B914E29149432D8BAC29A514640B46F53DDAB2C69948084E2930F1C8F7E08E07C9C63F2D21A07DCB56A6AF56EB3"
        "B263A1305E057F984D38726A1B46874109F417BCA112674C528262A40A629AF1CBB9F516CE0FA7D2FF630863A00E8B9F",
    ),
    AuthMethod.ECDSA_P521: (
        ec.SECP521R1(),
        "0065FDA3409451DCAB0A0EAD45495112A3D813C17BFD34BDF8C1209D7DF5849120597779060A7FF9D704ADF78B570FFAD6F0"
        "62E95C7E0C5D5481C5B153B48B375FA1",
        "0154FD3836AF92D0DCA57DD5341D3053988534FDE8318FC6AAAAB68E2E6F4339B19F2F281A7E0B22C269D93CF8794A927888"
        "0ED7DBB8D9362CAEACEE544320552251"
        "017705A7030290D1CEB605A9A1BB03FF9CDD521E87A696EC926C8C10C8362DF4975367101F67D1CF9BCCBF2F3D239534FA50"
        "9E70AAC851AE01AAC68D62F866472660",
    ),
}

# RFC 8032 sections 7.1 (test 2) and 7.4 (one octet): secret key, message, signature.
RFC_8032_ED25519 = (
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "72",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
)
RFC_8032_ED448 = (
    "c4eab05d357007c632f3dbb48489924d552b08fe0c353a0d4a1f00acda2c463afbea67c5e8d2877c5e3bc397a659949ef8021e954e0a12274e",
    "03",
    "26b8f91727bd62897af15e41eb43c377efb9c610d48f2335cb0bd0087810f4352541b143c4b981b7e18f62de8ccdf633fc1bf037ab7cd779"
    "805e0dbcc0aae1cbcee1afb2e027df36bc04dcecbf154336c19f0af7e0a6472905e799f1953d2a0ff3348ab21aa4adafd1d234441cf807c03"
    "a00",
)


@pytest.mark.parametrize("method", list(RFC_4754))
def test_the_vectors_of_rfc_4754(method: AuthMethod) -> None:
    curve, private, signature = RFC_4754[method]
    key = ec.derive_private_key(int(private, 16), curve)
    data = bytes.fromhex(signature)
    assert signatures.verify(key.public_key(), method, data, b"abc", RULES).startswith("ECDSA")
    with pytest.raises(SignatureRefused, match="not made with"):
        signatures.verify(key.public_key(), method, data, b"abd", RULES)
    own = signatures.sign(key, b"abc", (), RULES)
    assert (own.method, len(own.data)) == (method, len(data))
    signatures.verify(key.public_key(), method, own.data, b"abc", RULES)


def test_eddsa_by_rfc_8420_with_the_vectors_of_rfc_8032() -> None:
    # RFC 8420 appendix A: the AlgorithmIdentifier is 300506032b6570 for Ed25519 and 300506032b6571 for Ed448.
    for make, identifier, (secret, message, signature) in (
        (ed25519.Ed25519PrivateKey.from_private_bytes, "300506032b6570", RFC_8032_ED25519),
        (ed448.Ed448PrivateKey.from_private_bytes, "300506032b6571", RFC_8032_ED448),
    ):
        key = make(bytes.fromhex(secret))
        made = signatures.sign(key, bytes.fromhex(message), ALL, RULES)
        assert made.method is AuthMethod.DIGITAL_SIGNATURE
        assert made.data.hex() == "07" + identifier + signature


def test_the_algorithm_identifiers_of_rfc_7427_appendix_a() -> None:
    assert signatures.RSA_IDENTIFIERS[SignatureHash.SHA2_256].hex() == "300d06092a864886f70d01010b0500"
    assert signatures.ECDSA_IDENTIFIERS[SignatureHash.SHA2_512].hex() == "300a06082a8648ce3d040304"
    assert signatures.PSS_IDENTIFIERS[SignatureHash.SHA2_256].hex() == (
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer_hashes", [ALL, (5, 4, 3, 2), (1, 3, 5), (4, 5, 77)])
def test_what_is_signed_is_taken(kind: str, peer_hashes: tuple[int, ...]) -> None:
    key = some_key(kind)
    for rules in (RULES, SigningRules(pss=False)):
        made = signatures.sign(key, OCTETS, peer_hashes, rules)
        assert made.method is AuthMethod.DIGITAL_SIGNATURE
        used = signatures.read_algorithm(made.data[1 : 1 + made.data[0]]).hash
        assert used in peer_hashes
        how = signatures.verify(key.public_key(), made.method, made.data, OCTETS, RULES)
        assert how.startswith(keys.name_of(key.public_key()))
        assert ("PSS" in how) is (kind == "rsa" and rules.pss)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_signature_another_key_and_other_octets_are_refused(kind: str) -> None:
    key, other = some_key(kind).public_key(), some_key(kind, 1).public_key()
    made = signatures.sign(some_key(kind), OCTETS, ALL, RULES)
    for place in (0, 1, 5, len(made.data) // 2, len(made.data) - 1):
        damaged = bytearray(made.data)
        damaged[place] ^= 1
        with pytest.raises(SignatureRefused):
            signatures.verify(key, made.method, bytes(damaged), OCTETS, RULES)
    for data in (b"", b"\x00", made.data[:-1], made.data + b"\x00", made.data[:10], b"\xff" + made.data[1:]):
        with pytest.raises(SignatureRefused):
            signatures.verify(key, made.method, data, OCTETS, RULES)
    with pytest.raises(SignatureRefused, match="not made with the"):
        signatures.verify(other, made.method, made.data, OCTETS, RULES)
    with pytest.raises(SignatureRefused, match="not made with the"):
        signatures.verify(key, made.method, made.data, OCTETS + b"!", RULES)


def test_a_key_takes_no_signature_of_another_kind() -> None:
    for kind in KINDS:
        made = signatures.sign(some_key(kind), OCTETS, ALL, RULES)
        for other in KINDS:
            if other != kind:
                with pytest.raises(SignatureRefused, match=r"does not go with|not made with"):
                    signatures.verify(some_key(other).public_key(), made.method, made.data, OCTETS, RULES)


def test_a_hash_that_was_not_offered_is_refused() -> None:
    key = some_key("rsa")
    sha1 = bytes.fromhex("300d06092a864886f70d0101050500")
    data = bytes((len(sha1),)) + sha1 + key.sign(OCTETS, padding.PKCS1v15(), hashes.SHA1())  # type: ignore[union-attr, call-arg, arg-type]
    with pytest.raises(SignatureRefused, match="uses SHA1, which was not offered"):
        signatures.verify(key.public_key(), 14, data, OCTETS, OLD)
    # RFC 7427 appendix A.4.1: PSS with its defaults is PSS with SHA-1.
    default_pss = bytes.fromhex("300d06092a864886f70d01010a3000")
    with pytest.raises(SignatureRefused, match="uses SHA1"):
        signatures.verify(key.public_key(), 14, bytes((len(default_pss),)) + default_pss + bytes(256), OCTETS, OLD)


@pytest.mark.parametrize(
    ("kind", "hashes_", "wanted"),
    [
        ("rsa", (1, 5), "SHA2_256"),
        ("p256", (5,), "SHA2_256"),
        ("ed25519", (2, 3, 4), "IDENTITY"),
        ("ed448", (2,), "IDENTITY"),
    ],
)
def test_we_do_not_sign_with_a_hash_that_the_peer_has_not_listed(
    kind: str, hashes_: tuple[int, ...], wanted: str
) -> None:
    with pytest.raises(SignatureRefused, match=f"needs {wanted}.* the peer takes"):
        signatures.sign(some_key(kind), OCTETS, hashes_, RULES)


def test_an_old_peer_gets_rsa_with_sha_1_only_where_the_policy_allows_it() -> None:
    key = some_key("rsa")
    with pytest.raises(SignatureRefused, match="sha1_signatures = true"):
        signatures.sign(key, OCTETS, (), RULES)
    made = signatures.sign(key, OCTETS, (), OLD)
    assert made.method is AuthMethod.RSA_SIGNATURE
    assert signatures.verify(key.public_key(), 1, made.data, OCTETS, OLD) == "RSA-2048 SHA-1"
    with pytest.raises(SignatureRefused, match="sha1_signatures = true"):
        signatures.verify(key.public_key(), 1, made.data, OCTETS, RULES)
    with pytest.raises(SignatureRefused, match="not made with"):
        signatures.verify(key.public_key(), 1, made.data, OCTETS + b"!", OLD)


@pytest.mark.parametrize("hash_", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_an_old_peer_may_sign_rsa_with_a_better_hash(hash_: hashes.HashAlgorithm) -> None:
    key = some_key("rsa")
    data = key.sign(OCTETS, padding.PKCS1v15(), hash_)  # type: ignore[union-attr, call-arg, arg-type]
    assert "SHA2" in signatures.verify(key.public_key(), 1, data, OCTETS, RULES)


def test_there_is_no_eddsa_for_an_old_peer() -> None:
    with pytest.raises(SignatureRefused, match=r"RFC 7427.*Ed25519"):
        signatures.sign(some_key("ed25519"), OCTETS, (), RULES)


def test_an_old_ecdsa_method_goes_with_its_own_curve_only() -> None:
    made = signatures.sign(some_key("p256"), OCTETS, (), RULES)
    for method in (10, 11, 1, 2, 3, 200):
        with pytest.raises(SignatureRefused):
            signatures.verify(some_key("p256").public_key(), method, made.data, OCTETS, RULES)
    with pytest.raises(SignatureRefused, match="has 63 bytes, and one on P-256 64"):
        signatures.verify(some_key("p256").public_key(), 9, made.data[:-1], OCTETS, RULES)


@pytest.mark.parametrize(
    "identifier",
    [
        "30410609" + "00" * 61,
        "3000",
        "300d06092a864886f70d01010b0501ff",
        # PSS: MGF1 with SHA-1, another mask function, a trailer field of 2
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609608648016503"
        "0402030500a203020120",
        "303406092a864886f70d01010a3027a00f300d06096086480165030402010500a10f300d06096086480165030402010500a203020120",
    ],
)
def test_an_algorithm_identifier_that_is_none_is_refused(identifier: str) -> None:
    with pytest.raises(SignatureRefused, match="identifier"):
        signatures.read_algorithm(bytes.fromhex(identifier))


def test_pss_parameters_are_read_as_they_are() -> None:
    # SHA-256, MGF1 with SHA-256, a salt of 10 bytes; no NULL behind the hashes; the trailer field said in words.
    algorithm = signatures.read_algorithm(
        bytes.fromhex(
            "304206092a864886f70d01010a3035"
            "a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609608648016503040201"
            "a20302010aa303020101"
        )
    )
    assert (algorithm.hash, algorithm.salt_bytes) == (SignatureHash.SHA2_256, 10)

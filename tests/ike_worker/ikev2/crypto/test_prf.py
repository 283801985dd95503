import hashlib

import pytest

from ike_worker.ikev2.crypto.prf import prf, prf_plus
from ike_worker.ikev2.errors import LocalError
from ipc.algorithms import PRF_BYTES, PrfId

SHA256, SHA384, SHA512 = PrfId.HMAC_SHA2_256, PrfId.HMAC_SHA2_384, PrfId.HMAC_SHA2_512

# RFC 4231 sections 4.2, 4.3 and 4.7: a short key, a shorter one, and one longer than a block
RFC_4231 = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
        "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
        "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
        "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
        "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
    ),
]

# NIST SP 800-135 IKEv2 samples (CAVP component testing): prf, SKEYSEED, Ni | Nr | SPIi | SPIr, 132 bytes of DKM
NIST_PRF_PLUS = [
    (
        SHA256,
        "5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe",
        "3f302be1abcb28e18c332ee006064c9b40dac39e1e1a86408619a1cf9a6e4c07",
        "0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca531188d16041b3bb936d2dbb3b4"
        "993a6e768a809160de45d0283f273a6cdf6854379e31be72b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1"
        "c19bdcd4db14b29d98db1a74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad",
    ),
    (
        SHA384,
        "69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f51f7dfcf3330061888f6a94f",
        "fd1b572a8e7355916013b0ef88dacd3d2116ad07ce61f74924880e55f11a65b7",
        "4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6deeda4f952191dd9bc1f7a9502"
        "471a648d74dc06d38112de48a42501f6b1a3ad55c2099cd9a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca"
        "0c2fcca81ec1a412006dfaed38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4",
    ),
]


@pytest.mark.parametrize("key, data, sha256, sha384, sha512", RFC_4231)
def test_prf_gives_the_vectors_of_rfc_4231(key: bytes, data: bytes, sha256: str, sha384: str, sha512: str) -> None:
    assert prf(SHA256, key, data).hex() == sha256
    assert prf(SHA384, key, data).hex() == sha384
    assert prf(SHA512, key, data).hex() == sha512


@pytest.mark.parametrize("prf_id, key, seed, stream", NIST_PRF_PLUS)
def test_prf_plus_gives_the_samples_of_nist(prf_id: PrfId, key: str, seed: str, stream: str) -> None:
    for length in (0, 1, 15, PRF_BYTES[prf_id], PRF_BYTES[prf_id] + 1, 132):
        assert prf_plus(prf_id, bytes.fromhex(key), bytes.fromhex(seed), length).hex() == stream[: 2 * length]


def hmac_sha512(key: bytes, data: bytes) -> bytes:
    """RFC 2104, written out: shares no code with what it checks."""
    padded = key.ljust(128, b"\0")
    inner = hashlib.sha512(bytes(byte ^ 0x36 for byte in padded) + data).digest()
    return hashlib.sha512(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def test_prf_plus_with_sha512_agrees_with_the_formula_of_rfc_7296() -> None:
    key, seed = bytes(range(64)), bytes(range(100, 180))
    first = hmac_sha512(key, seed + b"\x01")
    second = hmac_sha512(key, first + seed + b"\x02")
    third = hmac_sha512(key, second + seed + b"\x03")
    assert prf_plus(SHA512, key, seed, 180) == (first + second + third)[:180]


def test_prf_plus_ends_after_255_blocks() -> None:
    assert len(prf_plus(SHA256, b"key", b"seed", 255 * 32)) == 255 * 32
    with pytest.raises(LocalError):
        prf_plus(SHA256, b"key", b"seed", 255 * 32 + 1)

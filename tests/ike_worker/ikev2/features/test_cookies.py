"""Cookies. RFC 7296 section 2.6."""

from ike_worker.ikev2.features.cookies import CookieJar

ALICE, BOB = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
SPI = b"8 bytes."


def jar() -> CookieJar:
    secrets = iter([b"a" * 32, b"b" * 32, b"c" * 32])
    return CookieJar(lambda _size: next(secrets))


def test_a_cookie_is_good_for_its_initiator_alone() -> None:
    one = jar()
    cookie = one.bake(b"nonce", ALICE, SPI, 0.0, 17)
    assert one.difficulty_of(cookie, b"nonce", ALICE, SPI, 14.0) == 17
    assert one.difficulty_of(cookie, b"other", ALICE, SPI, 14.0) is None
    assert one.difficulty_of(cookie, b"nonce", BOB, SPI, 14.0) is None
    assert one.difficulty_of(cookie, b"nonce", ALICE, b"8 other.", 14.0) is None
    assert one.difficulty_of(b"", b"nonce", ALICE, SPI, 14.0) is None


def test_its_secret_changes_and_the_one_before_is_taken_for_a_while() -> None:
    one = jar()
    cookie = one.bake(b"nonce", ALICE, SPI, 0.0)
    assert one.difficulty_of(cookie, b"nonce", ALICE, SPI, 16.0) == 0
    assert one.bake(b"nonce", ALICE, SPI, 16.0) != cookie
    assert one.difficulty_of(cookie, b"nonce", ALICE, SPI, 31.0) is None


def test_after_a_long_silence_the_old_secret_is_not_taken() -> None:
    one = jar()
    cookie = one.bake(b"nonce", ALICE, SPI, 0.0)
    assert one.difficulty_of(cookie, b"nonce", ALICE, SPI, 31.0) is None


def test_nobody_can_make_a_puzzle_easier_or_a_cookie_younger() -> None:
    one = jar()
    cookie = one.bake(b"nonce", ALICE, SPI, 0.0, 17)
    for place in range(len(cookie)):
        changed = bytearray(cookie)
        changed[place] ^= 1
        assert one.difficulty_of(bytes(changed), b"nonce", ALICE, SPI, 1.0) is None

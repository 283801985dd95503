"""Stateless cookies against floods of half-open IKE SAs. RFC 7296 section 2.6, RFC 8019 section 7.1.1.3."""

import hashlib
import hmac
from collections.abc import Callable

from ike_worker.ikev2.features.half_open import HALF_OPEN_S

SECRET_LIFE_S = HALF_OPEN_S / 2
"""A secret makes cookies for this long, and is taken for as long again: no longer than the half-open IKE SA lives that
was begun with one, so that a puzzle solved once is good for one (RFC 8019 section 10)."""
_SECRET_BYTES = 32
_HEAD_BYTES = 2
_MAC_BYTES = 16
COOKIE_BYTES = _HEAD_BYTES + _MAC_BYTES


class CookieJar:
    """Cookie = version of the secret | difficulty | MAC(secret, difficulty | Ni | IPi | SPIi).

    The MAC is keyed BLAKE2s (RFC 7693): under attack it is most of the work, and four times as fast as HMAC-SHA256.
    The difficulty is that of the puzzle that went with the cookie, 0 for none: so nothing need be remembered of who
    was given which.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._version = 0
        self._secret = b""
        self._previous = b""
        self._made_at = 0.0

    def bake(self, nonce_i: bytes, address: bytes, spi_i: bytes, now: float, difficulty: int = 0) -> bytes:
        """The cookie for this initiator; `address` has 4 or 16 bytes."""
        if now - self._made_at >= SECRET_LIFE_S or not self._secret:
            self._renew(now)
        asked = bytes((difficulty,))
        return bytes((self._version, difficulty)) + _mac(self._secret, asked + nonce_i + address + spi_i)

    def difficulty_of(self, cookie: bytes, nonce_i: bytes, address: bytes, spi_i: bytes, now: float) -> int | None:
        """Of a cookie that was made for this initiator, lately: the difficulty that was asked; else None."""
        if now - self._made_at >= SECRET_LIFE_S or not self._secret:
            self._renew(now)
        version, mac = cookie[:1], cookie[_HEAD_BYTES:]
        if version == bytes((self._version,)):
            secret = self._secret
        elif self._previous and version == bytes((self._version - 1 & 0xFF,)):
            secret = self._previous
        else:
            return None
        wanted = _mac(secret, cookie[1:_HEAD_BYTES] + nonce_i + address + spi_i)
        return cookie[1] if hmac.compare_digest(mac, wanted) else None

    def _renew(self, now: float) -> None:
        self._previous = self._secret if now - self._made_at < 2 * SECRET_LIFE_S else b""
        self._secret = self._random_bytes(_SECRET_BYTES)
        self._version = self._version + 1 & 0xFF
        self._made_at = now


def _mac(secret: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=secret, digest_size=_MAC_BYTES).digest()

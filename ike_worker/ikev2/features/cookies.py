"""Stateless cookies against floods of half-open IKE SAs. RFC 7296 section 2.6."""

import hmac
from collections.abc import Callable

from ipc.types import IpAddress

COOKIES_ABOVE_HALF_OPEN = 512
"""From this many half-open IKE SAs on, an initiator must show that it receives at its address."""
MAX_HALF_OPEN = 8192
"""With this many, new initiators get no answer at all."""
HALF_OPEN_S = 30.0
"""How long an initiator has from our IKE_SA_INIT response to its IKE_AUTH request."""
SECRET_LIFE_S = 60.0
"""A secret makes cookies for this long, and is taken for as long again."""
_SECRET_BYTES = 32
_VERSION_BYTES = 1


class CookieJar:
    """Cookie = version of the secret | HMAC(secret, Ni | IPi | SPIi)."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._version = 0
        self._secret = b""
        self._previous = b""
        self._made_at = 0.0

    def bake(self, nonce_i: bytes, address: IpAddress, spi_i: bytes, now: float) -> bytes:
        """The cookie for this initiator."""
        self._renew(now)
        return bytes((self._version,)) + _mac(self._secret, nonce_i, address, spi_i)

    def is_good(self, cookie: bytes, nonce_i: bytes, address: IpAddress, spi_i: bytes, now: float) -> bool:
        """Whether `cookie` was made for this initiator, lately."""
        self._renew(now)
        version, mac = cookie[:_VERSION_BYTES], cookie[_VERSION_BYTES:]
        if version == bytes((self._version,)):
            secret = self._secret
        elif self._previous and version == bytes((self._version - 1 & 0xFF,)):
            secret = self._previous
        else:
            return False
        return hmac.compare_digest(mac, _mac(secret, nonce_i, address, spi_i))

    def _renew(self, now: float) -> None:
        age_s = now - self._made_at
        if self._secret and age_s < SECRET_LIFE_S:
            return
        self._previous = self._secret if age_s < 2 * SECRET_LIFE_S else b""
        self._secret = self._random_bytes(_SECRET_BYTES)
        self._version = self._version + 1 & 0xFF
        self._made_at = now


def _mac(secret: bytes, nonce_i: bytes, address: IpAddress, spi_i: bytes) -> bytes:
    return hmac.digest(secret, nonce_i + address.packed + spi_i, "sha256")

"""Proposals in words ("aes256gcm16-prfsha384-x25519") and as values (RFC 7296 section 3.3).

Words are joined by "-" in any order; several of one kind are alternatives, most wanted first. A combined-mode cipher
and one that needs an integrity algorithm can't share a proposal (RFC 7296 section 3.3.3): write two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipc.algorithms import (
    CIPHER_NAMES,
    ESN_NAMES,
    INTEGRITY_NAMES,
    KEY_EXCHANGE_NAMES,
    PRF_NAMES,
    WEAK_WORDS,
    Cipher,
    EsnId,
    EspProposal,
    IkeProposal,
    IntegrityId,
    KeyExchangeId,
    PrfId,
    cipher_sizes,
)
from policy_loader.errors import nearest, quoted

_PRF_OF_INTEGRITY = {
    IntegrityId.HMAC_MD5_96: PrfId.HMAC_MD5,
    IntegrityId.HMAC_SHA1_96: PrfId.HMAC_SHA1,
    IntegrityId.HMAC_SHA2_256_128: PrfId.HMAC_SHA2_256,
    IntegrityId.HMAC_SHA2_384_192: PrfId.HMAC_SHA2_384,
    IntegrityId.HMAC_SHA2_512_256: PrfId.HMAC_SHA2_512,
}
IKE_WORDS = (*CIPHER_NAMES, *INTEGRITY_NAMES, *PRF_NAMES, *KEY_EXCHANGE_NAMES)
ESP_WORDS = (*CIPHER_NAMES, *INTEGRITY_NAMES, *KEY_EXCHANGE_NAMES, *ESN_NAMES)


@dataclass(slots=True)
class _Words:
    """The words of one proposal, sorted by kind, each kind in the order written."""

    encryption: list[Cipher] = field(default_factory=list)
    integrity: list[IntegrityId] = field(default_factory=list)
    prf: list[PrfId] = field(default_factory=list)
    key_exchange: list[KeyExchangeId] = field(default_factory=list)
    esn: list[EsnId] = field(default_factory=list)


def parse_ike(text: Any) -> IkeProposal:
    """The IKE proposal in words; ValueError with a sentence if it is none.

    Without a prf word the PRF is that of the integrity algorithm's hash; with a combined-mode cipher it must be named.
    """
    words = _sort(text, IKE_WORDS, "an IKE proposal")
    _check_ciphers(words)
    prf = words.prf or [_PRF_OF_INTEGRITY[one] for one in words.integrity]
    if not prf:
        raise ValueError("no PRF: add one of " + _offerable(PRF_NAMES))
    if not words.key_exchange:
        raise ValueError("no key exchange: add one of " + _offerable(KEY_EXCHANGE_NAMES))
    return IkeProposal(
        encryption=tuple(words.encryption),
        integrity=tuple(words.integrity),
        prf=tuple(prf),
        key_exchange=tuple(words.key_exchange),
    )


def parse_esp(text: Any) -> EspProposal:
    """The ESP proposal in words; ValueError with a sentence if it is none. Without "esn": 32-bit sequence numbers."""
    words = _sort(text, ESP_WORDS, "an ESP proposal")
    _check_ciphers(words)
    return EspProposal(
        encryption=tuple(words.encryption),
        integrity=tuple(words.integrity),
        key_exchange=tuple(words.key_exchange),
        esn=tuple(words.esn) or (EsnId.NO_ESN,),
    )


def ike_words(proposal: IkeProposal) -> str:
    """`proposal` in words that `parse_ike` reads."""
    return "-".join(
        [
            *_names(CIPHER_NAMES, proposal.encryption),
            *_names(INTEGRITY_NAMES, proposal.integrity),
            *_names(PRF_NAMES, proposal.prf),
            *_names(KEY_EXCHANGE_NAMES, proposal.key_exchange),
        ]
    )


def esp_words(proposal: EspProposal) -> str:
    """`proposal` in words that `parse_esp` reads."""
    return "-".join(
        [
            *_names(CIPHER_NAMES, proposal.encryption),
            *_names(INTEGRITY_NAMES, proposal.integrity),
            *_names(KEY_EXCHANGE_NAMES, proposal.key_exchange),
            *_names(ESN_NAMES, proposal.esn),
        ]
    )


def _offerable(words: Iterable[str]) -> str:
    """Those of `words` that may be recommended."""
    return ", ".join(word for word in words if word not in WEAK_WORDS)


def _names(table: Mapping[str, object], values: tuple[object, ...]) -> list[str]:
    return [name for value in values for name, known in table.items() if known == value]


def _sort(text: Any, known: tuple[str, ...], what: str) -> _Words:
    if not isinstance(text, str):
        raise ValueError('a proposal is text in quotes, such as "aes256gcm16"')
    words = _Words()
    seen = set()
    for word in text.split("-"):
        if word not in known:
            raise ValueError(f"{quoted(word, 40)} is no word of {what}; {nearest(word, known)}")
        if word in seen:
            raise ValueError(f'"{word}" stands there twice')
        seen.add(word)
        if word in CIPHER_NAMES:
            words.encryption.append(CIPHER_NAMES[word])
        elif word in INTEGRITY_NAMES:
            words.integrity.append(INTEGRITY_NAMES[word])
        elif word in PRF_NAMES:
            words.prf.append(PRF_NAMES[word])
        elif word in KEY_EXCHANGE_NAMES:
            words.key_exchange.append(KEY_EXCHANGE_NAMES[word])
        else:
            words.esn.append(ESN_NAMES[word])
    return words


def _check_ciphers(words: _Words) -> None:
    if not words.encryption:
        raise ValueError("no cipher: add one of " + _offerable(CIPHER_NAMES))
    combined = {cipher_sizes(cipher).aead for cipher in words.encryption}
    if len(combined) == 2:
        raise ValueError("combined-mode ciphers (gcm, ccm, chacha20poly1305) and others need a proposal each")
    if combined == {True} and words.integrity:
        raise ValueError("a combined-mode cipher takes no integrity algorithm: leave the sha... word out")
    if combined == {False} and not words.integrity:
        raise ValueError("no integrity algorithm: add one of " + _offerable(INTEGRITY_NAMES))

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.algorithms import (
    AES256CBC,
    AES256GCM16,
    CIPHER_NAMES,
    ESN_NAMES,
    INTEGRITY_NAMES,
    KEY_EXCHANGE_NAMES,
    PRF_NAMES,
    WEAK_WORDS,
    EsnId,
    EspProposal,
    IkeProposal,
    IntegrityId,
    KeyExchangeId,
    PrfId,
    cipher_sizes,
)
from policy_loader.model import DEFAULT_ESP, DEFAULT_IKE
from policy_loader.proposals import esp_words, ike_words, parse_esp, parse_ike


def test_an_ike_proposal_with_a_combined_mode_cipher() -> None:
    assert parse_ike("aes256gcm16-prfsha384-x25519") == IkeProposal(
        encryption=(AES256GCM16,),
        integrity=(),
        prf=(PrfId.HMAC_SHA2_384,),
        key_exchange=(KeyExchangeId.X25519,),
    )


def test_the_prf_follows_the_integrity_algorithm_where_none_is_named() -> None:
    assert parse_ike("aes256-sha512-sha256-ecp256") == IkeProposal(
        encryption=(AES256CBC,),
        integrity=(IntegrityId.HMAC_SHA2_512_256, IntegrityId.HMAC_SHA2_256_128),
        prf=(PrfId.HMAC_SHA2_512, PrfId.HMAC_SHA2_256),
        key_exchange=(KeyExchangeId.ECP_256,),
    )


def test_an_esp_proposal_has_short_sequence_numbers_unless_it_says_esn() -> None:
    assert parse_esp("aes256gcm16").esn == (EsnId.NO_ESN,)
    assert parse_esp("aes256gcm16-esn").esn == (EsnId.ESN,)
    assert parse_esp("aes256gcm16-esn-noesn").esn == (EsnId.ESN, EsnId.NO_ESN)


def test_the_built_in_proposals_are_proposals() -> None:
    assert [ike_words(parse_ike(words)) for words in DEFAULT_IKE] == list(DEFAULT_IKE)
    assert [parse_esp(words).key_exchange for words in DEFAULT_ESP] == [(), ()]


def some_of(names: object, least: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(sorted(names)), min_size=least, unique=True).map(tuple)  # type: ignore[call-overload]


AEAD = [name for name, cipher in CIPHER_NAMES.items() if cipher_sizes(cipher).aead]
PLAIN = sorted(set(CIPHER_NAMES) - set(AEAD))
CIPHERS = st.one_of(
    some_of(AEAD).map(lambda ciphers: (ciphers, ())), st.tuples(some_of(PLAIN), some_of(INTEGRITY_NAMES))
)


@settings(deadline=None, derandomize=True)
@given(CIPHERS, some_of(PRF_NAMES), some_of(KEY_EXCHANGE_NAMES))
def test_an_ike_proposal_goes_into_words_and_back(
    ciphers: tuple[tuple[str, ...], tuple[str, ...]], prf: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    words = "-".join((*ciphers[0], *ciphers[1], *prf, *groups))
    assert ike_words(parse_ike(words)) == words


@settings(deadline=None, derandomize=True)
@given(CIPHERS, some_of(KEY_EXCHANGE_NAMES, 0), some_of(ESN_NAMES))
def test_an_esp_proposal_goes_into_words_and_back(
    ciphers: tuple[tuple[str, ...], tuple[str, ...]], groups: tuple[str, ...], esn: tuple[str, ...]
) -> None:
    words = "-".join((*ciphers[0], *ciphers[1], *groups, *esn))
    proposal: EspProposal = parse_esp(words)
    assert esp_words(proposal) == words


@pytest.mark.parametrize("words", ["aes256gcm61-prfsha384-x25519", "aes256gcm16-prfsha348-x25519"])
def test_an_unknown_word_is_answered_with_the_nearest_known(words: str) -> None:
    with pytest.raises(ValueError, match=r'did you mean "(aes256gcm16|prfsha384)"'):
        parse_ike(words)


def test_weak_algorithms_are_used_where_they_are_named_and_never_recommended() -> None:
    proposal = parse_ike("3des-sha1-modp1024")
    assert (proposal.prf, proposal.key_exchange) == ((PrfId.HMAC_SHA1,), (KeyExchangeId.MODP_1024,))
    assert parse_esp("3des-md5").integrity == (IntegrityId.HMAC_MD5_96,)
    for words in ("x25519", "aes256", "aes256gcm16-x25519", "aes256gcm16-prfsha256"):
        with pytest.raises(ValueError) as refused:
            parse_ike(words)
        assert not set(str(refused.value).replace(",", "").split()) & set(WEAK_WORDS)


def test_no_weak_algorithm_and_no_modp_group_is_in_the_built_in_proposals() -> None:
    for words in (*DEFAULT_IKE, *DEFAULT_ESP):
        assert not set(words.split("-")) & set(WEAK_WORDS)
        assert "modp" not in words

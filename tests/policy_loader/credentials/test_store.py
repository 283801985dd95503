import pytest

from ipc.types import Secret
from policy_loader.credentials import store


@pytest.mark.parametrize(
    ("content", "psk"), [(b"key", b"key"), (b"key\n", b"key"), (b"key\r\n", b"key"), (b" key \n\n", b" key \n")]
)
def test_one_line_end_is_no_part_of_a_key(content: bytes, psk: bytes) -> None:
    assert store.psk_of_file(Secret(content), 0o600, 0).reveal() == psk


@pytest.mark.parametrize(
    ("content", "mode", "uid", "words"),
    [
        (b"", 0o600, 0, "empty"),
        (b"\n", 0o600, 0, "empty"),
        (b"never shown", 0o640, 0, "the group may read it"),
        (b"never shown", 0o600, 60703, "uid 60703"),
        (b"never shown" * 1000, 0o600, 0, "longer"),
    ],
)
def test_a_file_that_is_no_key_is_refused_without_quoting_it(content: bytes, mode: int, uid: int, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        store.psk_of_file(Secret(content), mode, uid)
    assert "never shown" not in str(caught.value)


def test_no_repr_shows_a_key() -> None:
    assert "never" not in repr(store.CredentialStore({"branch": store.of_psk(Secret(b"never shown"))}))
    assert "never" not in repr(store.of_psk(Secret(b"never shown")))

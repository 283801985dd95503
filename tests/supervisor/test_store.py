"""The checkpoints of IKE SAs."""

import pytest

from ipc import messages as m
from ipc.types import Secret
from supervisor.errors import StoreFull
from supervisor.store import MAX_CHUNK_BYTES, Store


def snapshot(number: int, size: int = 10) -> m.IkeSaSnapshot:
    return m.IkeSaSnapshot(spi=number.to_bytes(8, "big"), state=Secret(bytes(size)))


def save(*saved: m.IkeSaSnapshot, forgotten: tuple[bytes, ...] = ()) -> m.SaveIkeSas:
    return m.SaveIkeSas(sequence=1, saved=saved, forgotten=forgotten)


def test_an_empty_store_restores_one_empty_last_message() -> None:
    assert list(Store().restore()) == [m.RestoreIkeSas(snapshots=(), last=True)]


def test_the_last_state_of_each_ike_sa_is_kept() -> None:
    store = Store()
    store.save(save(snapshot(1, 10), snapshot(2, 10)))
    store.save(save(snapshot(1, 30)))
    (message,) = store.restore()
    assert {one.spi: len(one.state) for one in message.snapshots} == {snapshot(1).spi: 30, snapshot(2).spi: 10}
    assert (len(store), store.bytes) == (2, 40)


def test_what_is_forgotten_is_gone_and_forgetting_the_unknown_is_harmless() -> None:
    store = Store()
    store.save(save(snapshot(1), snapshot(2)))
    store.save(save(forgotten=(snapshot(1).spi, b"unknown!")))
    assert (snapshot(1).spi in store, snapshot(2).spi in store, store.bytes) == (False, True, 10)


def test_forgotten_and_saved_in_one_message_is_saved() -> None:
    store = Store()
    store.save(save(snapshot(1)))
    store.save(save(snapshot(1, 20), forgotten=(snapshot(1).spi,)))
    assert (len(store), store.bytes) == (1, 20)


def test_messages_are_bounded_in_count_and_only_the_last_says_last() -> None:
    store = Store()
    store.save(save(*(snapshot(number) for number in range(m.RULES_PER_MESSAGE * 2 + 1))))
    chunks = list(store.restore())
    assert [len(chunk.snapshots) for chunk in chunks] == [m.RULES_PER_MESSAGE, m.RULES_PER_MESSAGE, 1]
    assert [chunk.last for chunk in chunks] == [False, False, True]


def test_what_a_worker_knows_beside_its_ike_sas_is_kept_until_it_says_it_anew() -> None:
    store = Store()
    store.save(m.SaveIkeSas(sequence=1, saved=(snapshot(1),), forgotten=(), memory=b"first"))
    store.save(save(snapshot(2)))
    (message,) = store.restore()
    assert message.memory == b"first" and message.last
    store.save(m.SaveIkeSas(sequence=3, saved=(), forgotten=(), memory=b"second"))
    assert [one.memory for one in store.restore()] == [b"second"]


def test_messages_are_bounded_in_bytes() -> None:
    store = Store()
    size = m.MAX_SNAPSHOT_BYTES
    store.save(save(*(snapshot(number, size) for number in range(20))))
    chunks = list(store.restore())
    assert sum(len(chunk.snapshots) for chunk in chunks) == 20
    assert all(sum(len(one.state) for one in chunk.snapshots) <= MAX_CHUNK_BYTES for chunk in chunks)


def test_a_store_that_is_full_refuses_and_keeps_what_it_has() -> None:
    store = Store(max_bytes=100)
    store.save(save(snapshot(1, 90)))
    with pytest.raises(StoreFull):
        store.save(save(snapshot(2, 20), forgotten=(snapshot(1).spi,)))
    assert (snapshot(1).spi in store, snapshot(2).spi in store) == (True, False)


def test_the_newest_are_dropped_first_and_no_more_than_there_are() -> None:
    store = Store()
    store.save(save(snapshot(1), snapshot(2), snapshot(3)))
    store.save(save(snapshot(1, 20)))
    assert store.drop_newest(1) == 1
    assert [spi in store for spi in (snapshot(1).spi, snapshot(2).spi, snapshot(3).spi)] == [False, True, True]
    assert (store.drop_newest(8), len(store), store.bytes) == (2, 0, 0)

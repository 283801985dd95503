"""What a worker that is started again is told of the others, and the others of it."""

from ipaddress import ip_address

from ipc import messages as m
from ipc.types import Secret
from supervisor.standing import MAX_ANEW, Standing
from supervisor.store import Store


def sa(number: int) -> m.StandingSa:
    return m.StandingSa(
        spi=number.to_bytes(8, "big"),
        peer=f"p{number}",
        peer_id=b"",
        remote=ip_address("192.0.2.1"),
        ours=True,
        rank=bytes(8),
        created_at=1.0,
        authenticated_at=2.0,
        leaving=False,
        children=(),
    )


def store_of(*numbers: int) -> Store:
    store = Store()
    saved = tuple(m.IkeSaSnapshot(spi=number.to_bytes(8, "big"), state=Secret(b"x")) for number in numbers)
    store.save(m.SaveIkeSas(sequence=1, saved=saved, forgotten=()))
    return store


def test_a_worker_hears_of_what_the_others_have_and_not_of_its_own() -> None:
    standing = Standing()
    standing.take("one", m.WorkerNews(standing=(sa(1), sa(2))))
    standing.take("two", m.WorkerNews(standing=(sa(3),)))
    standing.take("one", m.WorkerNews(gone=(sa(1).spi,)))
    assert list(standing.elsewhere("two")) == [m.WorkerNews(standing=(sa(2),))]
    assert list(standing.elsewhere("one")) == [m.WorkerNews(standing=(sa(3),))]
    assert list(standing.elsewhere("three")) == [m.WorkerNews(standing=(sa(2), sa(3)))]


def test_much_comes_in_messages_of_bounded_size() -> None:
    standing = Standing()
    standing.take("one", m.WorkerNews(standing=tuple(sa(number) for number in range(300))))
    parts = list(standing.elsewhere("two"))
    assert [len(part.standing) for part in parts] == [m.RULES_PER_MESSAGE, 300 - m.RULES_PER_MESSAGE]
    assert sum(len(part.gone) for part in standing.keep_only("one", Store())) == 300
    assert list(standing.elsewhere("two")) == []


def test_what_a_worker_was_not_given_back_is_gone_for_all() -> None:
    standing = Standing()
    standing.take("one", m.WorkerNews(standing=(sa(1), sa(2))))
    assert list(standing.keep_only("one", store_of(2))) == [m.WorkerNews(gone=(sa(1).spi,))]
    assert list(standing.keep_only("one", store_of(2))) == []
    assert list(standing.elsewhere("two")) == [m.WorkerNews(standing=(sa(2),))]


def test_which_peers_have_started_anew_is_kept_for_a_worker_that_could_not_hear_it() -> None:
    standing = Standing()
    for before in (1.0, 5.0):
        standing.take("one", m.WorkerNews(anew=(m.StartedAnew(peer="p", peer_id=b"", before=before),)))
    assert list(standing.started_anew()) == [m.WorkerNews(anew=(m.StartedAnew(peer="p", peer_id=b"", before=5.0),))]
    for number in range(MAX_ANEW + 10):
        standing.take("one", m.WorkerNews(anew=(m.StartedAnew(peer=f"p{number}", peer_id=b"", before=1.0),)))
    assert sum(len(news.anew) for news in standing.started_anew()) == MAX_ANEW

"""Which data path an instance uses."""

import pytest

from ipc import messages as m
from ipc.types import DataPathKind
from supervisor.data_path import DataPathKeeper
from supervisor.errors import StartFailed

AUTO, KERNEL, USERSPACE = DataPathKind.AUTO, DataPathKind.KERNEL, DataPathKind.USERSPACE


def keeper(sent: list[object], *, kernel_esp: bool) -> DataPathKeeper:
    def send(message: object) -> bool:
        sent.append(message)
        return True

    made = DataPathKeeper(send)
    made.on_agent_ready(m.AgentReady(kernel_esp=kernel_esp, detail="" if kernel_esp else "EPROTONOSUPPORT"))
    return made


@pytest.mark.parametrize(
    ("wish", "kernel_esp", "kind"),
    [(AUTO, True, KERNEL), (AUTO, False, USERSPACE), (USERSPACE, True, USERSPACE), (KERNEL, True, KERNEL)],
)
def test_the_wish_and_the_kernel_decide(wish: DataPathKind, kernel_esp: bool, kind: DataPathKind) -> None:
    assert keeper([], kernel_esp=kernel_esp).choose(wish) is kind


def test_kernel_esp_that_is_not_there_can_not_be_had() -> None:
    with pytest.raises(StartFailed, match=r'data_path = "kernel", but this kernel has no ESP: EPROTONOSUPPORT'):
        keeper([], kernel_esp=False).choose(KERNEL)


def test_a_later_agent_is_told_the_same_data_path() -> None:
    sent: list[object] = []
    data_path = keeper(sent, kernel_esp=False)
    assert sent == []
    data_path.choose(AUTO)
    data_path.use()
    data_path.on_ready(m.DataPathReady(kind=USERSPACE))
    assert data_path.in_use
    data_path.agent_went()
    assert not data_path.in_use
    data_path.on_agent_ready(m.AgentReady(kernel_esp=True, detail=""))
    use = m.UseDataPath(kind=USERSPACE, tun_interface="ipsec0")
    assert [one for one in sent if one != m.LogUnmatched(on=False)] == [use, use]


def test_t9_an_agent_is_told_whether_to_log_unmatched_packets_as_often_as_it_is_new() -> None:
    sent: list[object] = []
    data_path = keeper(sent, kernel_esp=False)
    data_path.log_unmatched(True)
    data_path.choose(AUTO)
    assert sent == [], "it has no data path yet"
    for _ in range(2):
        data_path.on_ready(m.DataPathReady(kind=USERSPACE))
        assert sent.pop() == m.LogUnmatched(on=True)
    data_path.log_unmatched(False)
    assert sent.pop() == m.LogUnmatched(on=False)


def test_another_data_path_than_the_chosen_one_is_not_in_use() -> None:
    data_path = keeper([], kernel_esp=True)
    data_path.choose(KERNEL)
    data_path.on_ready(m.DataPathReady(kind=USERSPACE))
    assert not data_path.in_use

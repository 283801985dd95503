"""XFRM messages against the bytes that iproute2 6.1.0 sends, read with strace.

ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 proto tcp sport 22 dir out priority 20 index 0x49000009
    mark 0x10000000 mask 0x10000000 tmpl src 10.9.0.1 dst 10.9.0.2 proto esp reqid 0x49000001 mode tunnel
ip xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi 0x12345678 reqid 0x49000001 mode tunnel
    replay-window 64 flag esn aead "rfc4106(gcm(aes))" 0x0001..13 128 encap espinudp 4500 4501 0.0.0.0
    sel src 10.1.0.0/24 dst 10.2.0.0/24
ip xfrm state add ... enc "cbc(aes)" 0x0001..0f auth-trunc "hmac(sha256)" 0x0001..1f 128 ...
"""

import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.algorithms import AES128CBC, IntegrityId
from ipc.messages import Sa
from ipc.ownership import INNER_MARK
from ipc.types import Direction, Mode, PortRange, Secret, TrafficSelector, UdpEncapsulation
from kernel_agent.xfrm import messages, structs
from kernel_agent.xfrm.algorithms import algorithm_attributes
from kernel_agent.xfrm.constants import PolicyAction, StateFlag
from kernel_agent.xfrm.messages import InstalledPolicy, Policy
from kernel_agent.xfrm.structs import MaskedPort, Selector
from tests.kernel_agent.values import OURS, THEIRS, name_of, prefix, sa, selector

NEW_POLICY = bytes.fromhex(
    "0a0200000000000000000000000000000a010000000000000000000000000000000000000016ffff020018180600000000000000"
    "00000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff00000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000014000000"
    "090000490100000000000000440005000a0900020000000000000000000000000000000032000000020000000a09000100000000"
    "00000000000000000100004901000000ffffffffffffffffffffffff0c0015000000001000000010"
)

NEW_SA = bytes.fromhex(
    "0a0200000000000000000000000000000a0100000000000000000000000000000000000000000000020018180000000000000000"
    "000000000a09000200000000000000000000000012345678320000000a090001000000000000000000000000ffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffffffffffffffff00000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0100004902000100800000000000000060001200726663343130362867636d286165732929000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000a000000080000000000102030405060708090a0b"
    "0c0d0e0f101112131c0004000200119411950000000000000000000000000000000000001c001700020000000000000000000000"
    "000000000000000040000000"
)

CBC_ATTRIBUTES = bytes.fromhex(
    "58000200636263286165732900000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000080000000000102030405060708090a0b0c0d0e0f6c001400686d61632873686132353629"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0001000080000000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)
SSH_OUT = Selector(
    source=prefix("10.1.0.0/24"),
    destination=prefix("10.2.0.0/24"),
    protocol=6,
    source_port=MaskedPort(port=22, mask=0xFFFF),
)
POLICY = Policy(
    direction=Direction.OUT,
    selector=structs.pack_selector(SSH_OUT),
    mark=structs.pack_mark(INNER_MARK, INNER_MARK),
    priority=20,
    action=PolicyAction.ALLOW,
    template=structs.pack_template(source=OURS, destination=THEIRS, family=2, reqid=0x49000001, mode=Mode.TUNNEL),
)


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    return {attribute.kind: attribute.value for attribute in structs.unpack_attributes(body, offset)}


def test_a_policy_is_packed_as_iproute2_does() -> None:
    assert messages.new_policy(POLICY, 0x49000009) == NEW_POLICY


def test_a_policy_of_ours_reads_back() -> None:
    assert messages.tagged_policy(NEW_POLICY) == InstalledPolicy(index=0x49000009, policy=POLICY)
    assert structs.unpack_selector(POLICY.selector) == SSH_OUT


def test_a_policy_without_our_tag_is_not_ours() -> None:
    assert messages.tagged_policy(messages.new_policy(POLICY, 0x4A000009)) is None
    assert messages.tagged_policy(messages.new_policy(POLICY, 9)) is None


def test_an_sa_is_packed_as_iproute2_does() -> None:
    one = sa(encapsulation=UdpEncapsulation(source_port=4500, destination_port=4501))
    body = messages.new_sa(one)
    assert body[: structs.SA_INFO_BYTES] == NEW_SA[: structs.SA_INFO_BYTES]
    assert attributes(body, structs.SA_INFO_BYTES) == {
        **attributes(NEW_SA, structs.SA_INFO_BYTES),
        # iproute2 sends the bitmap's length without its two words; the kernel takes both.
        23: attributes(NEW_SA, structs.SA_INFO_BYTES)[23] + bytes(8),
    }


def test_cbc_and_hmac_are_packed_as_iproute2_does() -> None:
    one = sa(
        cipher=AES128CBC,
        integrity=IntegrityId.HMAC_SHA2_256_128,
        encryption_key=Secret(bytes(range(16))),
        integrity_key=Secret(bytes(range(32))),
    )
    assert algorithm_attributes(one) == CBC_ATTRIBUTES


def test_an_sa_of_ours_reads_back_by_name() -> None:
    found = messages.tagged_sa(NEW_SA)
    assert found == messages.InstalledSa(name=name_of(sa()), rule_id=1)


def test_larval_and_foreign_sas_are_not_ours() -> None:
    assert messages.tagged_sa(messages.new_sa(sa(spi=0))) is None
    foreign = bytearray(NEW_SA)
    foreign[structs.SA_INFO_BYTES - 13] = 0x4A
    assert messages.tagged_sa(bytes(foreign)) is None


def info(one: Sa) -> structs.SaInfo:
    return structs.unpack_sa_info(messages.new_sa(one))


def test_inbound_selectors_are_turned_round() -> None:
    found = structs.unpack_selector(info(sa(Direction.IN)).selector)
    assert (found.source, found.destination) == (prefix("10.2.0.0/24"), prefix("10.1.0.0/24"))


@pytest.mark.parametrize(
    "local",
    [
        (selector("10.1.0.0/24"), selector("10.1.1.0/24")),
        (
            TrafficSelector(
                protocol=0,
                start_address=ipaddress.ip_address("10.1.0.1"),
                end_address=ipaddress.ip_address("10.1.0.9"),
                start_port=0,
                end_port=65535,
            ),
        ),
        (selector("10.1.0.0/24", 17, PortRange(first=5, last=7)),),
    ],
    ids=["two", "no prefix", "no masked port"],
)
def test_what_one_selector_can_not_say_is_left_wide(local: tuple[TrafficSelector, ...]) -> None:
    found = info(sa(local=local))
    assert found.selector == bytes(structs.SELECTOR_BYTES)
    assert found.flags & StateFlag.AF_UNSPEC


def test_only_outbound_sas_answer_an_acquire() -> None:
    assert info(sa(Direction.OUT, acquire_id=77)).seq == 77
    assert info(sa(Direction.IN, acquire_id=77)).seq == 0


def test_sequence_numbers_without_esn_end_in_time() -> None:
    assert info(sa(esn=False)).soft_packets < 1 << 32
    assert info(sa(esn=True)).soft_packets == (1 << 64) - 1


def test_lifetimes_in_bytes_and_packets() -> None:
    fields = {"soft_lifetime_bytes": 5, "hard_lifetime_bytes": 6, "soft_lifetime_packets": 7}
    found = info(sa(**fields, hard_lifetime_packets=8))
    assert (found.soft_bytes, found.hard_bytes, found.soft_packets, found.hard_packets) == (5, 6, 7, 8)
    unlimited = info(sa())
    assert {unlimited.soft_bytes, unlimited.hard_bytes, unlimited.hard_packets} == {(1 << 64) - 1}
    assert info(sa(esn=False, soft_lifetime_packets=1 << 40)).soft_packets < 1 << 32


def test_o26_sequence_numbers_may_wrap_with_fixed_keys_and_cbc_alone() -> None:
    fixed = sa(esn=False, replay_window_packets=0, cipher=AES128CBC, integrity=IntegrityId.HMAC_SHA2_256_128)
    assert attributes(messages.new_sa(fixed), structs.SA_INFO_BYTES)[24] == (2).to_bytes(4, "little")
    assert info(fixed).soft_packets == (1 << 64) - 1
    for other in (sa(esn=False, replay_window_packets=0), sa(), dataclasses.replace(fixed, replay_window_packets=32)):
        assert 24 not in attributes(messages.new_sa(other), structs.SA_INFO_BYTES)


def test_lifetimes_that_no_kernel_could_hold_are_cut() -> None:
    found = info(sa(soft_lifetime_s=float("inf"), hard_lifetime_s=0.1))
    assert found.soft_seconds == messages.LONGEST_LIFETIME_S
    assert found.hard_seconds == 1


@pytest.mark.parametrize("window", [0, 1, 32, 33, 64, 1000, 1024])
@pytest.mark.parametrize("esn", [True, False])
def test_replay_windows(window: int, esn: bool) -> None:
    body = messages.new_sa(sa(esn=esn, replay_window_packets=window))
    wide = attributes(body, structs.SA_INFO_BYTES).get(23)
    if esn or window > 32:
        assert wide is not None
        assert len(wide) == 24 + 4 * int.from_bytes(wide[:4], "little")
        assert int.from_bytes(wide[20:24], "little") == max(window, 1)
        assert int.from_bytes(wide[:4], "little") * 32 >= max(window, 1)
    else:
        assert wide is None
        assert structs.unpack_sa_info(body).replay_window == window


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_port_masks_match_exactly_the_range(one: int, other: int) -> None:
    first, last = sorted((one, other))
    pairs = messages.port_masks(PortRange(first=first, last=last))
    assert len(pairs) <= 30
    sizes = [0x10000 - pair.mask for pair in pairs]
    assert sum(sizes) == last - first + 1
    edge = first
    for pair, size in zip(pairs, sizes, strict=True):
        assert pair.port == edge == pair.port & pair.mask
        edge += size


def test_icmp_type_and_code() -> None:
    (echo,) = messages.port_masks(PortRange(first=8 << 8, last=8 << 8 | 255))
    kind, code = messages.icmp_masks(echo)
    assert (kind, code) == (MaskedPort(port=8, mask=0xFF), MaskedPort(port=0, mask=0))
    (unreachable,) = messages.port_masks(PortRange(first=3 << 8 | 4, last=3 << 8 | 4))
    kind, code = messages.icmp_masks(unreachable)
    assert (kind, code) == (MaskedPort(port=3, mask=0xFF), MaskedPort(port=4, mask=0xFF))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_a_value_or_malformed(data: bytes) -> None:
    for read in (messages.tagged_policy, messages.tagged_sa, messages.acquire, messages.expire, messages.mapping):
        try:
            read(data)
        except structs.Malformed:
            continue


def test_a_policy_in_a_direction_that_there_is_not_is_malformed() -> None:
    body = bytearray(NEW_POLICY)
    body[160] = 7
    with pytest.raises(structs.Malformed, match="not a valid Direction"):
        messages.tagged_policy(bytes(body))

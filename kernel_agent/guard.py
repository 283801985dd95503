"""Says no: what the agent refuses to put into the kernel. Pure; it believes neither worker nor loader.

Every check raises Refused with one sentence. An SA passes only if a rule of the policy in force asks for just such an
SA (RFC 4301 section 4.4.3: the PAD and SPD, not the key exchange, decide what may be protected how).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ipc.algorithms import (
    INTEGRITY_KEY_BYTES,
    CipherSizes,
    EncryptionId,
    EsnId,
    EspProposal,
    IntegrityId,
    cipher_name,
    cipher_sizes,
    esp_suite_name,
)
from ipc.messages import KernelRule, Sa, SaName
from ipc.types import Action, Direction, IpAddress, Mode, NextLayer, PortRange, Prefix, TrafficSelector
from ipc.value import value

MAX_RULE_ID = (1 << 20) - 1
MAX_POSITION = (1 << 20) - 1
FIRST_SPI = 256
"""Smaller ones are reserved (RFC 4303 section 2.1)."""
LAST_SPI = 0xFFFF_FFFF
MAX_SAS_PER_RULE = 1024
MAX_REPLAY_WINDOW_PACKETS = 1024
MAX_PORT = 65535


class Refused(Exception):
    """What was asked is not allowed; the text says why."""


@value
class Installed:
    """What the guard must know of the SAs there are."""

    names: Collection[SaName]
    per_rule: Mapping[int, int]
    """How many SAs each rule has."""
    allocated: Collection[int] | None
    """Inbound SPIs that were given out and are not used yet; None while those of an agent before us may come."""


def check_rule(rule: KernelRule) -> None:
    """Refuses a rule whose numbers the kernel could not hold, or that lacks what its action needs."""
    fault = _fault_of(rule)
    if fault:
        raise Refused(f"rule {rule.name}: {fault}")


def _fault_of(rule: KernelRule) -> str:
    """What is wrong with it; words are made only for what is, as there may be very many rules."""
    if not 1 <= rule.rule_id <= MAX_RULE_ID:
        return f"id {rule.rule_id} is out of range"
    if rule.position > MAX_POSITION:
        return f"position {rule.position} is out of range"
    for prefix in (*rule.local, *rule.remote):
        if not _is_prefix(prefix):
            return f"{prefix} is no prefix"
    fault = _fault_of_layer(rule)
    for layer in rule.also:
        fault = fault or _fault_of_layer(layer)
    if fault:
        return fault
    return _fault_of_protect(rule) if rule.action is Action.PROTECT else ""


def _fault_of_layer(layer: KernelRule | NextLayer) -> str:
    if layer.protocol > 255:
        return f"protocol {layer.protocol} is out of range"
    for ports in (layer.local_port, layer.remote_port):
        if not ports.first <= ports.last <= MAX_PORT:
            return f"{ports.first}-{ports.last} is no port range"
    return ""


def _fault_of_protect(rule: KernelRule) -> str:
    """A peer's address may be unknown: then it comes from anywhere, and only its traffic is checked."""
    if not rule.esp_proposals:
        return "protect without an ESP proposal"
    if rule.manual and rule.peer_address is None:
        return "fixed keys without the peer's address"
    ours, theirs = rule.local_address, rule.peer_address
    if ours is not None and theirs is not None and ours.version != theirs.version:
        return "the ends of the tunnel are of two address families"
    return ""


def check_new_sas(sas: tuple[Sa, ...], rules: Mapping[int, KernelRule], installed: Installed) -> None:
    """Refuses SAs of an AddSa that the policy does not allow, or whose names are taken or not given out by us."""
    names: set[SaName] = set()
    counts: dict[int, int] = {}
    for sa in sas:
        check_sa(sa, rules)
        name = SaName(spi=sa.spi, destination=sa.destination)
        if name in installed.names or name in names:
            raise Refused(f"SPI {sa.spi:08x} is in use already")
        given_out = installed.allocated is None or sa.spi in installed.allocated
        if sa.direction is Direction.IN and not given_out:
            raise Refused(f"inbound SPI {sa.spi:08x} was not allocated here")
        names.add(name)
        counts[sa.rule_id] = counts.get(sa.rule_id, installed.per_rule.get(sa.rule_id, 0)) + 1
        if counts[sa.rule_id] > MAX_SAS_PER_RULE:
            raise Refused(f"rule {rules[sa.rule_id].name} has {MAX_SAS_PER_RULE} SAs already")


def check_owner(name: SaName, owners: Mapping[SaName, bytes], worker: bytes) -> None:
    """Refuses that a worker speaks of an SA that another one has."""
    _require(owners.get(name, worker) == worker, f"SPI {name.spi:08x} is another worker's")


def check_manual_sas(sas: Sequence[Sa], rules: Mapping[int, KernelRule]) -> None:
    """Refuses SAs with fixed keys that their rules do not ask for, or that must not have fixed keys.

    Such a key lives longer than any count of its packets. So nothing may rest on sequence numbers that never repeat: no
    anti-replay service and no ESN (RFC 4303 sections 2.2 and 3.3.3), and no cipher whose IV is a counter (RFC 4106
    section 2, RFC 7634 section 2, RFC 8221 section 4).
    """
    names: set[SaName] = set()
    for sa in sas:
        rule = _rule_of(sa, rules)
        label = f"rule {rule.name}"
        _require(rule.manual, f"{label} has no fixed keys: its SAs come from IKE")
        _require(
            sa.cipher.id is EncryptionId.AES_CBC,
            f"{label}: {cipher_name(sa.cipher)} must not have a fixed key (RFC 8221 section 4): use aes256 with sha256",
        )
        _require(
            not sa.esn and not sa.replay_window_packets,
            f"{label}: with fixed keys there is no anti-replay service and no ESN (RFC 4303 section 3.3.3)",
        )
        limits = (sa.soft_lifetime_s, sa.hard_lifetime_s, sa.soft_lifetime_bytes, sa.hard_lifetime_bytes)
        packets = (sa.soft_lifetime_packets, sa.hard_lifetime_packets)
        _require(not any(limits) and not any(packets), f"{label}: fixed keys have no lifetime: nobody would renew them")
        _check_against_rule(sa, rule)
        name = SaName(spi=sa.spi, destination=sa.destination)
        _require(name not in names, f"{label}: SPI {sa.spi:08x} to {sa.destination} is used twice")
        names.add(name)


def check_sa(sa: Sa, rules: Mapping[int, KernelRule]) -> None:
    """Refuses an SA of the worker's that no rule in force asks for, or whose numbers the kernel could not hold."""
    rule = _rule_of(sa, rules)
    if rule.manual:
        raise Refused(f"rule {rule.name} has fixed keys: no SA of it comes from IKE")
    _check_against_rule(sa, rule)


def _rule_of(sa: Sa, rules: Mapping[int, KernelRule]) -> KernelRule:
    rule = rules.get(sa.rule_id)
    if rule is None:
        raise Refused(f"there is no rule {sa.rule_id}")
    return rule


def _check_against_rule(sa: Sa, rule: KernelRule) -> None:
    fault = _fault_of_sa(sa, rule)
    if fault:
        raise Refused(fault)
    _check_addresses(sa, rule)
    _check_algorithms(sa, rule)
    _check_selectors(sa, rule)


def _fault_of_sa(sa: Sa, rule: KernelRule) -> str:
    """What is wrong with it beside addresses, algorithms and selectors; words only for what is, as of a rule."""
    if rule.action is not Action.PROTECT:
        return f"rule {rule.name} does not protect"
    if sa.direction not in (Direction.IN, Direction.OUT):
        return "an SA goes in or out"
    if not FIRST_SPI <= sa.spi <= LAST_SPI:
        return f"SPI {sa.spi:x} is out of range"
    if sa.mode is not rule.mode:
        return f"rule {rule.name} wants {rule.mode.name.lower()} mode"
    if sa.replay_window_packets > MAX_REPLAY_WINDOW_PACKETS:
        return f"a replay window of {sa.replay_window_packets} packets, at most {MAX_REPLAY_WINDOW_PACKETS}"
    if sa.acquire_id > LAST_SPI:
        return "the acquire id is out of range"
    if sa.encapsulation is not None:
        ports = (sa.encapsulation.source_port, sa.encapsulation.destination_port)
        if not all(1 <= port <= MAX_PORT for port in ports):
            return f"UDP ports {ports[0]} and {ports[1]}"
    return ""


def _check_addresses(sa: Sa, rule: KernelRule) -> None:
    outward = sa.direction is Direction.OUT
    ours, theirs = (sa.source, sa.destination) if outward else (sa.destination, sa.source)
    if ours.version != theirs.version:
        raise Refused("source and destination are of two address families")
    if rule.peer_address is not None and theirs != rule.peer_address:
        raise Refused(f"{theirs} is not the peer of rule {rule.name}")
    if rule.local_address is not None and ours != rule.local_address:
        raise Refused(f"{ours} is not our end of rule {rule.name}")
    if rule.mode is Mode.TRANSPORT:
        # In transport mode the outer addresses are the ones protected, unless a NAT stands between.
        for address, prefixes in ((ours, rule.local), (theirs, rule.remote)):
            inside = sa.encapsulation is not None or any(_holds(prefix, address, address) for prefix in prefixes)
            _require(inside, f"{address} is outside rule {rule.name}")


def _check_algorithms(sa: Sa, rule: KernelRule) -> None:
    try:
        sizes = cipher_sizes(sa.cipher)
    except KeyError:
        raise Refused(f"no cipher {cipher_name(sa.cipher)}") from None
    fault = _fault_of_suite(sa, sizes, rule)
    if fault:
        raise Refused(f"{esp_suite_name(sa.cipher, sa.integrity, sa.esn)}{fault}")


def _fault_of_suite(sa: Sa, sizes: CipherSizes, rule: KernelRule) -> str:
    """What is to be said behind its name."""
    wanted_key, wanted_integrity_key = sizes.key + sizes.salt, INTEGRITY_KEY_BYTES[sa.integrity]
    # RFC 4303 section 3.3.2.1: encryption without integrity is not offered, and a combined mode has its own.
    if sizes.aead != (sa.integrity is IntegrityId.NONE):
        return " lacks integrity, or has it twice"
    if not any(_proposes(proposal, sa, sizes.aead) for proposal in rule.esp_proposals):
        return f" is not among the proposals of rule {rule.name}"
    if len(sa.encryption_key) != wanted_key:
        return f": a key of {len(sa.encryption_key)} bytes, not {wanted_key}"
    if len(sa.integrity_key) != wanted_integrity_key:
        return f": an integrity key of {len(sa.integrity_key)} bytes, not {wanted_integrity_key}"
    return ""


def _proposes(proposal: EspProposal, sa: Sa, aead: bool) -> bool:
    allowed_esn = proposal.esn or (EsnId.NO_ESN,)
    return (
        sa.cipher in proposal.encryption
        and (aead or sa.integrity in proposal.integrity)
        and (EsnId.ESN if sa.esn else EsnId.NO_ESN) in allowed_esn
    )


def _check_selectors(sa: Sa, rule: KernelRule) -> None:
    _require(bool(sa.local and sa.remote), "an SA without traffic selectors")
    for selector in sa.local:
        ports = [layer.local_port for layer in rule.next_layers if layer.protocol in (0, selector.protocol)]
        _check_selector(selector, rule.local, ports, rule)
    for selector in sa.remote:
        ports = [layer.remote_port for layer in rule.next_layers if layer.protocol in (0, selector.protocol)]
        _check_selector(selector, rule.remote, ports, rule)


def _check_selector(
    selector: TrafficSelector, prefixes: Iterable[Prefix], ports: Iterable[PortRange], rule: KernelRule
) -> None:
    """`ports` are those that the rule has for the selector's protocol."""
    inside = (
        selector.start_address.version == selector.end_address.version
        and int(selector.start_address) <= int(selector.end_address)
        and _cover(prefixes, selector.start_address, selector.end_address)
        and selector.protocol <= 255
        and selector.start_port <= selector.end_port <= MAX_PORT
        and any(one.first <= selector.start_port and selector.end_port <= one.last for one in ports)
    )
    if not inside:
        raise Refused(f"traffic selector {selector} is outside rule {rule.name}")


def _cover(prefixes: Iterable[Prefix], first: IpAddress, last: IpAddress) -> bool:
    """Whether the prefixes together hold all addresses from `first` to `last`: a range is made of several."""
    spans = sorted(
        (int(prefix.address), int(prefix.address) | (1 << (prefix.address.max_prefixlen - prefix.length)) - 1)
        for prefix in prefixes
        if prefix.address.version == first.version
    )
    wanted = int(first)
    for start, end in spans:
        if start <= wanted <= end:
            wanted = end + 1
    return wanted > int(last)


def _holds(prefix: Prefix, first: IpAddress, last: IpAddress) -> bool:
    if prefix.address.version != first.version:
        return False
    drop = prefix.address.max_prefixlen - prefix.length
    return int(first) >> drop == int(last) >> drop == int(prefix.address) >> drop


def _is_prefix(prefix: Prefix) -> bool:
    bits = prefix.address.max_prefixlen
    return prefix.length <= bits and int(prefix.address) & ((1 << (bits - prefix.length)) - 1) == 0


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise Refused(reason)

"""The SPDs of the two gateways, made from one description so that they always fit each other."""

from dataclasses import dataclass, field

from tests.lab.namespaces import WIRE

PSK = "a pre-shared key for tests only, 2f61c9"
LEFT_ID = "left.example"
RIGHT_ID = "right.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The addresses of a gateway: on the wire, and of the net behind it."""

    identity: str
    outer: str
    inner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One tunnel between the gateways of `namespaces.gateways()`, as either side's SPD says it."""

    left: Side = field(default=Side(identity=LEFT_ID, outer="10.9.0.1", inner="10.1.0.0/24"))
    right: Side = field(default=Side(identity=RIGHT_ID, outer="10.9.0.2", inner="10.2.0.0/24"))
    mode: str = "tunnel"
    ike: str = "aes256gcm16-prfsha256-x25519"
    esp: str = "aes256gcm16-esn"
    data_path: str = "auto"
    unmatched: str = "bypass"
    auth: str = f'auth = "psk"\npsk = "{PSK}"'
    """The lines of [peers.NAME] that say how the two authenticate."""
    local_id: str = ""
    """The line of [peers.NAME] that says it, if that is not the side's own."""
    remote_id: str = ""
    """As `local_id`, of the other side."""
    peer_settings: str = ""
    """More lines of [peers.NAME]."""
    rule_settings: str = ""
    """More lines of the protect rule."""
    rules_before: str = ""
    """Whole [[rules]] ahead of the protect rule."""

    def left_spd(self, **changes: str) -> str:
        """The left gateway's SPD; `changes` as keyword arguments of `Pair`."""
        return self._text(self.left, self.right, changes)

    def right_spd(self, **changes: str) -> str:
        """The right gateway's SPD."""
        return self._text(self.right, self.left, changes)

    def _text(self, own: Side, other: Side, changes: dict[str, str]) -> str:
        values = {name: changes.get(name, getattr(self, name)) for name in _CHANGEABLE}
        return f"""\
[setup]
interfaces = ["{WIRE}"]
unmatched = "{values["unmatched"]}"
data_path = "{values["data_path"]}"

[proposals.lab]
ike = ["{values["ike"]}"]
esp = ["{values["esp"]}"]

[peers.other]
address = "{other.outer}"
local_address = "{own.outer}"
{values["local_id"] or f'local_id = "{own.identity}"'}
{values["remote_id"] or f'remote_id = "{other.identity}"'}
{values["auth"]}
proposals = "lab"
{values["peer_settings"]}

{values["rules_before"]}

[[rules]]
name = "nets"
action = "protect"
local = ["{own.inner}"]
remote = ["{other.inner}"]
peer = "other"
mode = "{values["mode"]}"
{values["rule_settings"]}
"""


_CHANGEABLE = (
    *("auth", "local_id", "remote_id", "mode", "ike", "esp", "data_path", "unmatched"),
    *("peer_settings", "rule_settings", "rules_before"),
)

IPV4 = Pair()
IPV6 = Pair(
    left=Side(identity=LEFT_ID, outer="fd09::1", inner="fd01::/64"),
    right=Side(identity=RIGHT_ID, outer="fd09::2", inner="fd02::/64"),
)
HOST_TO_HOST = Pair(
    left=Side(identity=LEFT_ID, outer="10.9.0.1", inner="10.9.0.1/32"),
    right=Side(identity=RIGHT_ID, outer="10.9.0.2", inner="10.9.0.2/32"),
    mode="transport",
)

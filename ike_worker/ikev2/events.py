"""What the engine wants from outside, and what it tells. One of its methods answers each event that has a token."""

from ipc.algorithms import PrfId
from ipc.messages import CertificateData, Sa, SaName
from ipc.types import Secret
from ipc.value import value


@value
class AllocateSpi:
    """An inbound SPI is wanted. Answer: `spi_allocated`."""

    token: int
    rule_id: int


@value
class ComputeAuth:
    """Our AUTH is wanted. Fields as in `ipc.messages.ComputeAuth`. Answer: `auth_computed`, `auth_refused`."""

    token: int
    peer: str
    prf: PrfId
    initiator: bool
    message: bytes
    nonce: bytes
    sk_p: Secret
    id_payload: bytes
    hash_algorithms: tuple[int, ...] = ()
    requested_encodings: tuple[int, ...] = ()


@value
class VerifyAuth:
    """Is this the peer's AUTH? Fields as in `ipc.messages.VerifyAuth`. Answer: `auth_verified`, `auth_refused`."""

    token: int
    peer: str
    prf: PrfId
    initiator: bool
    message: bytes
    nonce: bytes
    sk_p: Secret
    id_payload: bytes
    method: int
    data: bytes
    certificates: tuple[CertificateData, ...] = ()


@value
class InstallSas:
    """Install these, all or none, in this order. Answer: `sas_installed`, `sas_refused`."""

    token: int
    sas: tuple[Sa, ...]


@value
class DeleteSas:
    """Remove these; no answer. May name SAs of an InstallSas that is not answered yet: keep the order."""

    sas: tuple[SaName, ...]


@value
class QueryUsage:
    """How much traffic have these seen? Answer: `sas_used`; none is needed."""

    sas: tuple[SaName, ...]


@value
class IkeSaEstablished:
    """An IKE SA stands: both sides are authenticated, or a rekey has replaced an older one."""

    own_spi: bytes
    peer: str
    replaces: bytes
    """Our SPI of the one that it replaces by a rekey; empty if it does not."""


@value
class ChildSaEstablished:
    """A Child SA stands. `rekeyed_spi_in` is the inbound SPI of the one that it replaces."""

    own_spi: bytes
    rule: str
    spi_in: int
    spi_out: int
    rekeyed_spi_in: int | None


@value
class ChildSaClosed:
    """A Child SA is no more."""

    own_spi: bytes
    rule: str
    spi_in: int
    reason: str


@value
class IkeSaClosed:
    """An IKE SA that stood is no more."""

    own_spi: bytes
    peer: str
    reason: str


@value
class NegotiationFailed:
    """No SA came of it. `rule` is empty where the IKE SA itself failed and no rule had asked for it."""

    peer: str
    rule: str
    reason: str
    """A sentence for people."""


@value
class IkeSaNotRekeyed:
    """An IKE SA stands as before; its rekey is tried again later."""

    own_spi: bytes
    reason: str


@value
class OrderEnded:
    """What an operator has asked for is done, if `failure` is empty; otherwise that says to people why not."""

    order: int
    failure: str


@value
class AllClosed:
    """After `close_all`: every DELETE is answered or given up."""


Question = AllocateSpi | ComputeAuth | VerifyAuth | InstallSas
"""Events with a token."""
Event = (
    Question
    | DeleteSas
    | QueryUsage
    | IkeSaEstablished
    | ChildSaEstablished
    | ChildSaClosed
    | IkeSaClosed
    | NegotiationFailed
    | IkeSaNotRekeyed
    | OrderEnded
    | AllClosed
)

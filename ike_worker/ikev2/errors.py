"""The error family of the IKEv2 core: what the peer did wrong (RemoteError) and what this side did (LocalError)."""

from ike_worker.ikev2.iana import NotifyType


class Ikev2Error(Exception):
    """The root of the family: nothing else comes out of the core for anything that the network sends."""


class RemoteError(Ikev2Error):
    """The peer, or somebody who pretends to be the peer, sent what can't be accepted."""

    notify: NotifyType = NotifyType.INVALID_SYNTAX
    """What the peer would be told (RFC 7296 section 2.21)."""
    notify_data: bytes = b""
    """The data of that notify."""


class LocalError(Ikev2Error):
    """This side can't do what its caller asks."""


class MalformedMessage(RemoteError):
    """A length, a type or a value out of range (RFC 7296 section 3.10.1, INVALID_SYNTAX)."""


class UnsupportedCriticalPayload(RemoteError):
    """A payload of unknown type with the critical bit (RFC 7296 section 2.5)."""

    notify = NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD

    def __init__(self, payload_type: int) -> None:
        super().__init__(f"critical payload of unknown type {payload_type}")
        self.payload_type = payload_type
        self.notify_data = bytes((payload_type,))


class InvalidMajorVersion(RemoteError):
    """Not IKE version 2 (RFC 7296 section 2.5)."""

    notify = NotifyType.INVALID_MAJOR_VERSION


class IntegrityFailure(RemoteError):
    """A protected message is not authentic. It is dropped without an answer (RFC 7296 section 2.21)."""


class InvalidKeyExchange(RemoteError):
    """A public value of a wrong length, outside its group, or one that gives no secret (RFC 6989 section 2.5)."""


class Refused(RemoteError):
    """What the peer asks for is well formed, and is not to be had; `notify` says so to the peer."""

    def __init__(self, notify: NotifyType, reason: str, notify_data: bytes = b"") -> None:
        super().__init__(reason)
        self.notify = notify
        self.notify_data = notify_data


class AuthenticationFailed(RemoteError):
    """The peer is not who it says it is, or nobody we know. The text is for our log: a peer is never told which."""

    notify = NotifyType.AUTHENTICATION_FAILED


class RefusedHere(LocalError):
    """The policy loader or the kernel agent said no."""


class IllegalTransition(Exception):
    """A step that the table of states does not have: a defect of ours, so not of the family that is caught."""

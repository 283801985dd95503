"""Errors of the links between roles."""


class IpcError(Exception):
    """The family: everything that `ipc` raises on purpose."""


class MessageRefused(IpcError):
    """A message that is malformed, unknown, too long, or not for this link: refused, counted, survived."""


class PeerGone(IpcError):
    """The other end of a link is not connected, or takes no more; the message was not sent."""

"""Errors of ipsecctl."""


class CommandError(Exception):
    """The family: a command can't do what it was asked, and the text says why, for people."""


class NoAnswer(CommandError):
    """The supervisor did not answer in time."""

"""Errors of ipsecctl."""

from ipsecctl import exit_codes


class CommandError(Exception):
    """The family: a command can't do what it was asked, and the text says why, for people."""

    exit_code = exit_codes.STRANGE


class NotConfigured(CommandError):
    """There is no policy file."""

    exit_code = exit_codes.NOT_CONFIGURED


class NoAnswer(CommandError):
    """The supervisor did not answer in time."""

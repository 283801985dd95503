"""Errors of ipsecctl."""

from ipsecctl import exit_codes


class CommandError(Exception):
    """The family: a command can't do what it was asked, and the text says why, for people."""

    exit_code = exit_codes.STRANGE

    def __init__(self, text: str, exit_code: int | None = None) -> None:
        super().__init__(text)
        if exit_code is not None:
            self.exit_code = exit_code


class NotConfigured(CommandError):
    """There is no policy file."""

    exit_code = exit_codes.NOT_CONFIGURED


class BadPolicy(CommandError):
    """The policy file is not good: `complaints` say all that is wrong, FILE:LINE:COLUMN: key: text each."""

    def __init__(self, complaints: tuple[str, ...]) -> None:
        self.complaints = complaints
        super().__init__("\n".join((*complaints, "the policy file is not good")))


class NoAnswer(CommandError):
    """The supervisor did not answer in time."""

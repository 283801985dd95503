"""What an operator chooses on the command line."""

import os

from ipc.value import value

DEFAULT_INSTANCE = "/run/ipsecd"
DEFAULT_SPD = "/etc/ipsec.spd"
LOG_LEVELS = ("WARNING", "INFO", "DEBUG")
"""By message level: 0 quiet, 1 a line for each negotiation, 2 verbose."""


@value
class Settings:
    """One instance of ipsecd."""

    instance: str = DEFAULT_INSTANCE
    """The run directory, absolute and without a slash at its end: it names the instance."""
    spd_path: str = DEFAULT_SPD
    log_level: str = LOG_LEVELS[1]
    backup: bool = False
    """Start on the backup of the policy file; a reload takes the file itself."""
    log_unmatched: bool = False
    """Log packets that no rule matches."""
    output: str = ""
    """The file that all output goes to, absolute; empty for where it goes otherwise."""


def instance_name(directory: str) -> str:
    """The one spelling of a run directory by which processes and sockets of an instance are found."""
    return os.path.abspath(directory)

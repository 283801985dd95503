"""The exit codes of ipsecctl."""

OK = 0
STRANGE = 1
"""It failed, or something strange was found."""
USAGE = 2
NOT_ROOT = 4
NOT_CONFIGURED = 6
"""There is no policy file."""

"""Errors of the supervisor."""


class SupervisorError(Exception):
    """The family: everything that the supervisor raises on purpose."""


class StartFailed(SupervisorError):
    """The instance can't be started; `lines` say why, for people."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class AlreadyRunning(StartFailed):
    """Another supervisor holds the lock of this instance."""


class NotConfigured(StartFailed):
    """There is no policy file."""

    exit_code = 6


class FileRefused(SupervisorError):
    """A file can't be had, or must not be read; the text says why."""


class FileMissing(FileRefused):
    """There is no such file."""


class StoreFull(SupervisorError):
    """The worker wants more kept than a supervisor keeps."""


class IllegalTransition(SupervisorError):
    """A child may not go from its state to that one: an error of the supervisor's own."""

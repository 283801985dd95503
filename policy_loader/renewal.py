"""CRLs and OCSP responses are read again now and then, since they age while a policy stays in force."""

import logging
from collections.abc import Callable, Iterator

from ipc.loop import Timer
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.revocation import StatusFile
from policy_loader.errors import printable

log = logging.getLogger(__name__)

RENEWAL_S = 600.0
"""From one time to the next."""


class Renewal:
    """Reads the files of the policy in force again. `ask` has a file fetched, under a request id of `request_ids`."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        ask: Callable[[int, str], None],
        request_ids: Iterator[int],
    ) -> None:
        self._call_later = call_later
        self._ask = ask
        self._request_ids = request_ids
        self._files: tuple[StatusFile, ...] = ()
        self._asked: dict[int, StatusFile] = {}
        self._timer: Timer | None = None

    def watch(self, files: tuple[StatusFile, ...]) -> None:
        """From now on these files, and no others."""
        self._files = files
        self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_later(RENEWAL_S, self._begin) if files else None

    def take(self, request_id: int, fetched: FetchedFile) -> bool:
        """A file has come; False if it was not asked for here."""
        file = self._asked.pop(request_id, None)
        if file is None:
            return False
        complaint = file.renew(fetched)
        if complaint:
            log.warning(
                "%s can't be read again, what it said before holds: %s", printable(file.path), printable(complaint)
            )
        return True

    def _begin(self) -> None:
        self._asked = {next(self._request_ids): file for file in self._files}
        for request_id, file in self._asked.items():
            self._ask(request_id, file.path)
        self._timer = self._call_later(RENEWAL_S, self._begin)

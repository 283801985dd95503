"""`ipsecctl capture-keys`: the keys of the present SAs, as two tables that Wireshark reads from its profile directory.

Who has them can read the traffic: root alone may ask, the files are for root alone, and who asked is recorded.
"""

import argparse
import json
import os

from ipc import wishes as w
from ipc.algorithms import cipher_name
from ipc.messages import CommandDone
from ipsecctl.asker import asker
from ipsecctl.errors import CommandError
from ipsecctl.record import Record
from ipsecctl.wireshark import ESP_TABLE, IKE_TABLE, esp_line, ike_line, unreadable
from ipsecctl.wishes import say, send


def run(options: argparse.Namespace) -> int:
    """Writes the tables; 0 if they are written."""
    of_whom = f"of peer {options.peer}" if options.peer else "of all peers"
    with Record() as record:
        record.detail(f"capture-keys: the keys {of_whom} are asked for by {asker()}, for {options.directory}")
    answers = send(options, w.OperatorVerb.CAPTURE_KEYS, options.peer)
    if isinstance(answers[-1], CommandDone):
        return say(options, answers[-1])
    ike_sas, esp_sas = (
        [one for part in answers for one in part.ike_sas],
        [one for part in answers for one in part.esp_sas],
    )
    ike_lines = [line for one in ike_sas if (line := ike_line(one)) is not None]
    esp_lines = [line for one in esp_sas if (line := esp_line(one)) is not None]
    left_out = {one.cipher for one in ike_sas if ike_line(one) is None}
    left_out |= {one.cipher for one in esp_sas if esp_line(one) is None}
    try:
        os.makedirs(options.directory, mode=0o700, exist_ok=True)
        _write(os.path.join(options.directory, IKE_TABLE), ike_lines)
        _write(os.path.join(options.directory, ESP_TABLE), esp_lines)
    except OSError as error:
        raise CommandError(f"{options.directory}: {error.strerror}") from error
    if options.json:
        names = sorted(map(cipher_name, left_out))
        counts = {"ike_sas": len(ike_lines), "esp_sas": len(esp_lines), "left_out": names}
        print(json.dumps({"directory": options.directory, **counts}))
    else:
        if left_out:
            print(f"warning: {unreadable(left_out)}")
        print(f"{len(ike_lines)} IKE SAs and {len(esp_lines)} ESP SAs are in {options.directory}")
        print("who reads these files can read the traffic: delete them when you have seen enough")
    return 0


def _write(path: str, lines: list[str]) -> None:
    """Replaces the file at once, readable by its owner alone from its first byte on."""
    part = f"{path}.{os.getpid()}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except OSError:
        os.unlink(part)
        raise

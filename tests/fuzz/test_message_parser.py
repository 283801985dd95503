"""The invariant of the parser: arbitrary bytes give a message or an Ikev2Error, in bounded time.

About ten seconds of mutated valid messages, hand-made chains and noise, from a fixed seed; every authentic plaintext
is mutated, too, since a peer may be malicious behind its authentication. Run with -s to see the count.
"""

import random
import struct
import time
from collections import Counter

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.errors import Ikev2Error
from ike_worker.ikev2.wire.message import (
    MAX_MESSAGE_BYTES,
    open_fragment,
    open_message,
    parse_message,
    parse_plaintext,
    split_message,
)
from tests.fuzz.messages import AUTH, CBC, GCM, INIT, TYPES, authentic, clear, sealed, with_true_length

DURATION_S = 10.0
SEED = 7296
MAX_PARSE_CPU_S = 0.2
"""For any message up to 65,535 bytes; the worst ones take a tenth of this on an idle machine."""

INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 0x7F, 0x80, 0xFE, 0xFF)


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few changes of the kinds that break parsers; mostly with a length field that fits, to get further in."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed)) if changed else 0
        kind = source.randrange(7)
        if kind == 0:
            changed[at : at + 1] = bytes((source.choice(INTERESTING),))
        elif kind == 1:
            changed[at : at + 1] = source.randbytes(1)
        elif kind == 2:
            changed[at : at + 2] = struct.pack("!H", source.choice((0, 1, 3, 4, 5, 8, 0xFFFF, len(changed))))
        elif kind == 3:
            del changed[at : at + source.randint(1, 12)]
        elif kind == 4:
            changed[at:at] = source.randbytes(source.randint(1, 12))
        elif kind == 5:
            changed[at:at] = changed[at : at + source.randint(1, 60)]
        else:
            del changed[at:]
    return with_true_length(bytes(changed)) if source.random() < 0.9 else bytes(changed)


def chain(source: random.Random) -> bytes:
    """A header and payloads of random types whose lengths are nearly right."""
    first = source.choice(TYPES)
    data = source.randbytes(16) + bytes((first, 0x20, 34, 8)) + bytes(8)
    for _ in range(source.randint(0, 8)):
        body = source.randbytes(source.choice((0, 1, 4, 8, 16, 20, 40)))
        length = len(body) + 4 + (source.randint(-4, 4) if source.random() < 0.1 else 0)
        data += struct.pack("!BBH", source.choice(TYPES), source.choice((0, 0, 0, 0x80)), length) + body
    return with_true_length(data)


def parse_within_bounds(data: bytes, protection: MessageProtection) -> str:
    """The name of what came out: anything but a message or an Ikev2Error goes up and fails the test."""
    begun = time.thread_time()
    try:
        parsed = parse_message(data)
        if parsed.encrypted is not None:
            open_message(data, parsed, protection)
        if parsed.fragment is not None:
            parse_plaintext(parsed.fragment.first_payload, open_fragment(data, parsed.fragment, protection))
        return "Message"
    except Ikev2Error as error:
        return type(error).__name__
    finally:
        assert time.thread_time() - begun < MAX_PARSE_CPU_S, f"{len(data)} bytes took too long: {data[:64].hex()}"


def test_only_messages_and_family_errors_come_out() -> None:
    source = random.Random(SEED)
    inner = clear(AUTH)[28:]
    valid = ((clear(INIT), GCM), (clear(AUTH), GCM), (sealed(GCM), GCM), (sealed(CBC), CBC))
    valid += tuple((part, GCM) for part in split_message((sealed(GCM),), 150, GCM, source.randbytes))
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + DURATION_S
    while time.monotonic() < end:
        for data, protection in valid:
            outcomes[parse_within_bounds(mutate(data, source), protection)] += 1
        plaintext = mutate(bytes(28) + inner, source)[28:]
        outcomes[parse_within_bounds(authentic(plaintext, source.choice((35, *TYPES)), GCM), GCM)] += 1
        outcomes[parse_within_bounds(chain(source), GCM)] += 1
        outcomes[parse_within_bounds(source.randbytes(source.choice((0, 1, 27, 28, 29, 32, 200))), GCM)] += 1
    print(f"{outcomes.total()} messages: {dict(outcomes.most_common())}")
    kinds = {"Message", "MalformedMessage", "UnsupportedCriticalPayload", "InvalidMajorVersion", "IntegrityFailure"}
    assert set(outcomes) == kinds, "the mutations reach every outcome, and no other one comes"


GENERIC = b"\0\0LL"


def around(body: bytes, *headers: bytes) -> bytes:
    """`body` inside nested structures, innermost header first, with their lengths in place of LL."""
    for header in headers:
        body = header.replace(b"LL", (len(header) + len(body)).to_bytes(2)) + body
    return body


def test_the_largest_messages_are_parsed_in_bounded_time() -> None:
    transforms = b"\x03\0\0\x08\x01\0\0\x14" * 254 + b"\0\0\0\x08\x01\0\0\x14"
    proposal = around(transforms, b"\2\0LL\1\1\0\xff")
    last_proposal = around(transforms, b"\0\0LL\1\1\0\xff")
    attributes = around(b"\x80\x0e\1\0" * 16360, b"\0\0LL\1\0\0\x14", b"\0\0LL\1\1\0\1")
    selectors = b"\x07\0\0\x10" + bytes(12)
    cases = {
        "unknown payloads": (200, b"\xc8\0\0\4" * 16376),
        "notifies": (41, b"\x29\0\0\x08\0\0\x40\0" * 8188),
        "selectors": (44, around(b"\xff\0\0\0" + selectors * 255, b"\x2c\0LL") * 16),
        "SPIs": (42, around(b"\3\1" + (65000).to_bytes(2) + bytes(65000), GENERIC)),
        "empty proposals": (33, around(b"\2\0\0\x08\1\1\0\0" * 8000 + b"\0\0\0\x08\1\1\0\0", GENERIC)),
        "transforms": (33, around(proposal * 30 + last_proposal, GENERIC)),
        "attributes": (33, around(attributes, GENERIC)),
    }
    for name, (first, body) in cases.items():
        data = with_true_length(bytes(16) + bytes((first, 0x20, 34, 8)) + bytes(8) + body)
        assert 60000 < len(data) <= MAX_MESSAGE_BYTES
        begun = time.thread_time()
        outcome = parse_within_bounds(data, GCM)
        print(f"{name}: {outcome} of {len(data)} bytes in {(time.thread_time() - begun) * 1000:.1f} ms")
        assert outcome == ("MalformedMessage" if name in ("unknown payloads", "notifies", "selectors") else "Message")

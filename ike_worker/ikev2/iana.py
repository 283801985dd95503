"""Numbers of the IKEv2 wire, as IANA's "Internet Key Exchange Version 2 (IKEv2) Parameters" lists them.

The numbers of algorithms stand in `ipc.algorithms`, those of authentication methods, hash algorithms, certificate
encodings and identification types in `ipc.types`. A number that arrives stays an int: an unknown one is no error, and
compares unequal to every member.
"""

import enum


# RFC 7296 section 3.1
class ExchangeType(enum.IntEnum):
    """What a message and its answer are for."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43  # RFC 9242


# RFC 7296 section 3.2
class PayloadType(enum.IntEnum):
    """The Next Payload field."""

    NONE = 0
    SECURITY_ASSOCIATION = 33
    KEY_EXCHANGE = 34
    IDENTIFICATION_INITIATOR = 35
    IDENTIFICATION_RESPONDER = 36
    CERTIFICATE = 37
    CERTIFICATE_REQUEST = 38
    AUTHENTICATION = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TRAFFIC_SELECTORS_INITIATOR = 44
    TRAFFIC_SELECTORS_RESPONDER = 45
    ENCRYPTED = 46
    CONFIGURATION = 47
    EAP = 48
    ENCRYPTED_FRAGMENT = 53  # RFC 7383
    PUZZLE_SOLUTION = 54  # RFC 8019


# RFC 7296 section 3.10.1
class NotifyType(enum.IntEnum):
    """Notify message types: errors below 16384, statuses from there on."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40  # RFC 4555
    UNEXPECTED_NAT_DETECTED = 41  # RFC 4555
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    STATE_NOT_FOUND = 47  # RFC 9370

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396  # RFC 4555, as the next five
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    AUTH_LIFETIME = 16403  # RFC 4478
    MULTIPLE_AUTH_SUPPORTED = 16404  # RFC 4739
    ANOTHER_AUTH_FOLLOWS = 16405
    REDIRECT_SUPPORTED = 16406  # RFC 5685
    REDIRECT = 16407
    REDIRECTED_FROM = 16408
    EAP_ONLY_AUTHENTICATION = 16417  # RFC 5998
    CHILDLESS_IKEV2_SUPPORTED = 16418  # RFC 6023
    QUICK_CRASH_DETECTION = 16419  # RFC 6290
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420  # RFC 6311
    IKEV2_FRAGMENTATION_SUPPORTED = 16430  # RFC 7383
    SIGNATURE_HASH_ALGORITHMS = 16431  # RFC 7427
    PUZZLE = 16434  # RFC 8019
    USE_PPK = 16435  # RFC 8784
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438  # RFC 9242
    ADDITIONAL_KEY_EXCHANGE = 16441  # RFC 9370


FIRST_STATUS_NOTIFY = 16384
"""Notify types below this one report errors (RFC 7296 section 3.10.1)."""


# RFC 7296 section 3.3.1
class ProtocolId(enum.IntEnum):
    """What a proposal, notify or delete is about."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


# RFC 7296 section 3.3.2
class TransformType(enum.IntEnum):
    """The kinds of algorithm in a proposal."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5


# RFC 7296 section 3.3.5
class AttributeType(enum.IntEnum):
    """Transform attributes."""

    KEY_LENGTH = 14


# RFC 7296 section 3.13.1
class TsType(enum.IntEnum):
    """Traffic selector types."""

    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


def name_of(kind: type[enum.IntEnum], number: int) -> str:
    """What people call `number` in `kind`; its digits if it is not in the table."""
    return kind(number).name if number in kind._value2member_map_ else str(number)

from ike_worker.ikev2.errors import InvalidMajorVersion, RemoteError, UnsupportedCriticalPayload
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType, name_of


def test_a_known_number_has_its_name() -> None:
    assert name_of(ExchangeType, 35) == "IKE_AUTH"
    assert name_of(NotifyType, 16388) == "NAT_DETECTION_SOURCE_IP"


def test_an_unknown_number_is_its_digits() -> None:
    assert name_of(PayloadType, 200) == "200"
    assert name_of(NotifyType, 65535) == "65535"


def test_an_error_knows_what_the_peer_would_be_told() -> None:
    critical = UnsupportedCriticalPayload(200)
    assert (critical.notify, critical.notify_data, critical.payload_type) == (1, b"\xc8", 200)
    assert InvalidMajorVersion("IKE version 3.0").notify is NotifyType.INVALID_MAJOR_VERSION
    assert RemoteError("anything").notify is NotifyType.INVALID_SYNTAX

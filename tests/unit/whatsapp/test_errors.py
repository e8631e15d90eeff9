import pytest

from service.domain.disconnects import Cause
from service.whatsapp.errors import cause_of, is_certain


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("failed to dial whatsapp web websocket: dial tcp: lookup web.whatsapp.com: no such host", Cause.UNREACHABLE),
        ("dial tcp 127.0.0.1:443: connect: connection refused", Cause.UNREACHABLE),
        ("proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout", Cause.UNREACHABLE),
        ("failed to dial: tls: failed to verify certificate: x509: unknown authority", Cause.UNREACHABLE),
        ("socks connect tcp 127.0.0.1:1080: unknown error general SOCKS server failure", Cause.UNREACHABLE),
        ("failed to WebSocket dial: expected handshake response status code 101 but got 502", Cause.UNREACHABLE),
        ("noise handshake failed: failed to verify server cert", Cause.UNREACHABLE),
        ("proto: required field neonize.ConnectFailure.Reason not set", Cause.CLIENT_ERROR),
        ("proto: (line 1:2): required field neonize.Receipt.Type not set", Cause.CLIENT_ERROR),
        ('pq: password authentication failed for user "zap"', Cause.CLIENT_ERROR),
        ("failed to upgrade database: dial tcp 127.0.0.1:5432: connect: connection refused", Cause.CLIENT_ERROR),
        ("something that nobody has seen before", Cause.CLIENT_ERROR),
        ("", Cause.CLIENT_ERROR),
    ],
)
def test_the_library_s_words_have_a_cause(words: str, cause: Cause) -> None:
    assert cause_of(words) is cause


@pytest.mark.parametrize(
    ("words", "certain"),
    [
        ("websocket not connected", True),
        ("the store doesn't contain a device JID", True),
        ("server returned error 463", True),
        ("failed to get device list: failed to send usync query: info query timed out", True),
        ("no LID found for 49170@s.whatsapp.net from server", True),
        ("unknown user server ''", True),
        ("timed out waiting for message send response", False),
        ("websocket disconnected before info query returned response", False),
        ("failed to send message node: failed to write", False),
        ("something that nobody has seen before", False),
    ],
)
def test_only_words_that_rule_it_out_say_that_nothing_was_sent(words: str, certain: bool) -> None:
    assert is_certain(words) is certain

import pytest

from service.domain.call_failures import CallFailure
from service.domain.disconnect_policy import Cause
from service.domain.send_failures import SendFailure
from service.worker.errors import call_failure, cause_of, is_certain, send_failure

DIALLING = "failed to dial whatsapp web websocket: failed to WebSocket dial: "
SENDING = f'{DIALLING}failed to send handshake request: Get "https://web.whatsapp.com/ws/chat": '


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (f"{SENDING}dial tcp: lookup web.whatsapp.com on 10.0.0.1:53: no such host", Cause.UNREACHABLE),
        (f"{SENDING}dial tcp 127.0.0.1:443: connect: connection refused", Cause.UNREACHABLE),
        (f"{SENDING}dial tcp 10.0.0.1:443: i/o timeout", Cause.UNREACHABLE),
        (f"{SENDING}read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", Cause.UNREACHABLE),
        (f"{SENDING}EOF", Cause.UNREACHABLE),
        (f"{SENDING}unexpected EOF", Cause.UNREACHABLE),
        ("noise handshake failed: failed to send handshake message: write: broken pipe", Cause.UNREACHABLE),
        (f"{SENDING}proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout", Cause.PROXY_REFUSED),
        (f"{SENDING}proxyconnect tcp: dial tcp: lookup proxy.example: no such host", Cause.PROXY_REFUSED),
        (f"{SENDING}proxyconnect tcp: tls: failed to verify certificate: x509: unknown", Cause.PROXY_REFUSED),
        (f"{SENDING}Proxy Authentication Required", Cause.PROXY_REFUSED),
        (f"{SENDING}Forbidden", Cause.PROXY_REFUSED),
        (f"{SENDING}Bad Gateway", Cause.PROXY_REFUSED),
        (f"{SENDING}socks connect tcp 127.0.0.1:1080->web.whatsapp.com:443: unknown error", Cause.PROXY_REFUSED),
        ('unsupported proxy scheme "ftp"', Cause.PROXY_REFUSED),
        (f"{SENDING}tls: failed to verify certificate: x509: certificate has expired", Cause.TLS_REFUSED),
        (f"{SENDING}tls: first record does not look like a TLS handshake", Cause.TLS_REFUSED),
        (f"{SENDING}remote error: tls: handshake failure", Cause.TLS_REFUSED),
        (f"{SENDING}http: server gave HTTP response to HTTPS client", Cause.TLS_REFUSED),
        ("noise handshake failed: failed to verify server cert: failed to verify", Cause.TLS_REFUSED),
        ("noise handshake failed: timed out waiting for handshake response", Cause.CONNECT_STALLED),
        (f"{SENDING}net/http: TLS handshake timeout", Cause.CONNECT_STALLED),
        (f"{SENDING}context deadline exceeded", Cause.CONNECT_STALLED),
        (f"{DIALLING}expected handshake response status code 101 but got 502", Cause.WHATSAPP_ERROR),
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
        ("frame too large (got 50332365 bytes, max 16777216 bytes)", True),
        ("client is nil", True),
        ("websocket not connected", True),
        ("the store doesn't contain a device JID", True),
        ("no app state keys found, creating app state keys is not yet supported", True),
        ("server returned error 463", True),
        ("failed to get device list: failed to send usync query: info query timed out", True),
        ("failed to get LID for PN 49170@s.whatsapp.net: pq: canceling statement", True),
        ("failed to get user info for 49170@s.whatsapp.net to fill LID cache: info query timed out", True),
        ("no LID found for 49170@s.whatsapp.net from server", True),
        ("unknown user server ''", True),
        ("failed to marshal message for retry store: proto: cannot marshal", True),
        ("failed to add message to retry store: pq: canceling statement due to lock timeout", True),
        ("failed to clear old messages from retry store: pq: could not extend file", True),
        ("failed to send retry message: failed to write", False),
        ("timed out waiting for message send response", False),
        ("websocket disconnected before info query returned response", False),
        ("failed to send message node: failed to write", False),
        ("something that nobody has seen before", False),
    ],
)
def test_only_words_that_rule_it_out_say_that_nothing_was_sent(words: str, certain: bool) -> None:
    assert is_certain(words) is certain


USER, GROUP = "49170@s.whatsapp.net", "120363000000000001@g.us"
GROUP_MEMBERS = "failed to get group members: "
USYNC = "failed to get device list: failed to send usync query: "


@pytest.mark.parametrize(
    ("words", "to", "failure"),
    [
        (f"no LID found for {USER} from server", USER, SendFailure.RECIPIENT_NOT_ON_WHATSAPP),
        (f"{GROUP_MEMBERS}that group does not exist", GROUP, SendFailure.GROUP_NOT_FOUND),
        (f"{GROUP_MEMBERS}you're not participating in that group", GROUP, SendFailure.NOT_IN_GROUP),
        ("server returned error 404", GROUP, SendFailure.GROUP_NOT_FOUND),
        ("server returned error 403", GROUP, SendFailure.NOT_IN_GROUP),
        (f"{USYNC}info query returned status 403: forbidden", GROUP, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 404", USER, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 403", USER, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 463", USER, SendFailure.ACCOUNT_RESTRICTED),
        ("server returned error 475", USER, SendFailure.ACCOUNT_RESTRICTED),
        ("server returned error 463", GROUP, SendFailure.ACCOUNT_RESTRICTED),
        ("server returned error 420", GROUP, SendFailure.RATE_LIMITED),
        ("server returned error 429", USER, SendFailure.RATE_LIMITED),
        (f"{USYNC}info query returned status 429: rate-overlimit", USER, SendFailure.RATE_LIMITED),
        (f"{GROUP_MEMBERS}info query returned status 429: rate-overlimit", GROUP, SendFailure.RATE_LIMITED),
        (f"{USYNC}info query returned status 500: internal-server-error", USER, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 479", USER, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 500", GROUP, SendFailure.REFUSED_BY_WHATSAPP),
        ("server returned error 4630", USER, SendFailure.REFUSED_BY_WHATSAPP),
        (f"{USYNC}info query timed out", USER, SendFailure.NOT_SENT),
        ("websocket not connected", USER, SendFailure.NOT_SENT),
        ("something that nobody has seen before", USER, SendFailure.NOT_SENT),
        ("", USER, SendFailure.NOT_SENT),
    ],
)
def test_a_message_that_was_not_sent_has_a_kind_of_failure(words: str, to: str, failure: SendFailure) -> None:
    assert send_failure(words, to) is failure


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("failed to send usync query: websocket not connected", CallFailure.SESSION_NOT_CONNECTED),
        ("client is nil", CallFailure.SESSION_NOT_CONNECTED),
        ("that group does not exist", CallFailure.GROUP_NOT_FOUND),
        ("you're not participating in that group", CallFailure.NOT_IN_GROUP),
        ("that group invite link is not valid", CallFailure.INVITE_INVALID),
        ("that group invite link has been revoked", CallFailure.INVITE_INVALID),
        ("you don't have the permission to get the group's invite link", CallFailure.NOT_ALLOWED),
        ("info query returned status 406: not-acceptable", CallFailure.REFUSED_BY_WHATSAPP),
        ("the given data is not a valid image", CallFailure.REFUSED_BY_WHATSAPP),
        ("invalid disappearing timer provided", CallFailure.REFUSED_BY_WHATSAPP),
        ("that user or group does not have a profile picture", CallFailure.PICTURE_NOT_FOUND),
        ("the user has hidden their profile picture from you", CallFailure.PICTURE_HIDDEN),
        ("info query returned status 429: rate-overlimit", CallFailure.RATE_LIMITED),
        ("info query returned status 403: forbidden", CallFailure.NOT_ALLOWED),
        ("info query returned status 404: item-not-found", CallFailure.WHATSAPP_NOT_FOUND),
        ("graphql error: 404 not found (CRITICAL)", CallFailure.WHATSAPP_NOT_FOUND),
        ("info query returned status 500: internal-server-error", CallFailure.REFUSED_BY_WHATSAPP),
        ("info query timed out", None),
        ("", None),
    ],
)
def test_a_call_that_was_not_carried_out_has_a_kind_of_failure(words: str, failure: CallFailure | None) -> None:
    assert call_failure(words) is failure


def test_nothing_found_is_the_group_if_the_call_was_about_one() -> None:
    words = "info query returned status 404: item-not-found"
    assert call_failure(words, group="12036@g.us") is CallFailure.GROUP_NOT_FOUND
    assert call_failure("that group invite link is not valid", group="12036@g.us") is CallFailure.INVITE_INVALID

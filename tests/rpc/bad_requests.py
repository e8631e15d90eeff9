"""Generators of requests that no server of zap.v1 may accept, for every RPC of it.

Each gives (method, bytes): the bytes need not be a message at all.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.pictures import jpeg
from zap.v1 import (
    call_service_pb2,
    contact_pb2,
    group_service_pb2,
    message_pb2,
    presence_service_pb2,
    profile_pb2,
    session_pb2,
    watch_pb2,
)

METHODS: dict[str, type[Message]] = {
    f"/{service.full_name}/{method.name}": getattr(module, method.input_type.name)
    for module, name in (
        (session_pb2, "SessionService"),
        (message_pb2, "MessageService"),
        (watch_pb2, "EventService"),
        (contact_pb2, "ContactService"),
        (profile_pb2, "ProfileService"),
        (presence_service_pb2, "PresenceService"),
        (call_service_pb2, "CallService"),
        (group_service_pb2, "GroupService"),
    )
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
}
STREAMS = {"/zap.v1.SessionService/StreamQR", "/zap.v1.EventService/Watch"}

HUGE = "x" * (140 * 1024)
"""Longer than any field may be, and short enough for all fields of a request: above 1 MiB gRPC itself refuses."""
GOOD: dict[str, Any] = {
    "session_id": "known",
    "request_id": "r-1",
    "to": "4917612345678",
    "phone": "4917612345678",
    "numbers": ["4917612345678"],
    "person": "4917612345678",
    "people": ["4917612345678"],
    "whose": "4917612345678",
    "chat": "4917612345678",
    "caller": "1234567@lid",
    "call_id": "C-1",
    "activity": presence_service_pb2.SetChatPresenceRequest.ACTIVITY_TYPING,
    "name": "Anna",
    "about": "Busy",
    "jpeg": jpeg(),
    "setting": profile_pb2.SetPrivacyRequest.SETTING_CALLS,
    "audience": profile_pb2.PRIVACY_AUDIENCE_KNOWN,
    "group": "12036@g.us",
    "community": "12099@g.us",
    "settings": group_service_pb2.GroupSettings(name="Chess"),
    "action": group_service_pb2.UpdateParticipantsRequest.ACTION_ADD,
    "participants": ["4917612345678"],
    "invite": "AbCdEfGhIjKlMnOpQrStUv",
}

_TARGET = {"target": message_pb2.MessageRef(message_id="A", chat="123456@lid", from_me=True)}
_TEXT = {"text": message_pb2.Text(body="hello")}
_GOOD_MESSAGES: dict[type[Message], dict[str, Any]] = {
    message_pb2.SendRequest: _TEXT,
    message_pb2.EditRequest: _TARGET | _TEXT,
    message_pb2.RevokeRequest: _TARGET,
    message_pb2.PinInChatRequest: _TARGET,
    message_pb2.MarkReadRequest: {"chat": "123456@lid", "message_ids": ["A"]},
}

wild_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
with_nul = st.tuples(st.text("ab", max_size=5), st.text("ab", max_size=5)).map("\x00".join)
bad_id = st.one_of(
    st.just(""),
    st.just("x" * 64),
    st.just("Capital"),
    st.just("line\n"),
    st.just("../../etc/passwd"),
    st.just("a' OR '1'='1"),
    st.just("fu\uff4cl"),
    st.just(HUGE),
    with_nul,
    wild_text.filter(lambda text: not _is_id(text)),
)
bad_phone = st.one_of(
    st.sampled_from(
        ["", "0123456789", "++4917612345678", "123456", "1" * 16, "4917612345678\n", "٤٩١٧٦١٢٣٤٥٦٧٨", HUGE]
    ),
    wild_text.filter(lambda text: not text.isascii() or not text.strip("+").isdigit()),
)
bad_recipient = st.one_of(
    st.sampled_from(
        ["a@s.whatsapp.net", "4917612345678@evil.example", "4917612345678@s.whatsapp.net\n", "1@lid", "@g.us"]
    ),
    bad_phone.filter(lambda text: "@" not in text),
)
bad_person = bad_recipient | st.just("12036@g.us")
bad_people: st.SearchStrategy[Any] = st.one_of(
    st.just([]),
    st.just(["4917612345678"] * 1001),
    st.lists(bad_person, min_size=1, max_size=3),
)
bad_numbers: st.SearchStrategy[Any] = st.one_of(
    st.just([]), st.just(["4917612345678"] * 101), st.just(["1" * 65]), with_nul.map(lambda text: [text])
)
bad_group = st.sampled_from(["", "12036", "4917612345678", "1@lid", "12036@g.us\n", "x@g.us", HUGE]) | with_nul
bad_participants: st.SearchStrategy[Any] = st.one_of(
    st.just(["4917612345678"] * 257), st.lists(bad_person, min_size=1, max_size=3)
)
bad_invite = st.sampled_from(
    ["", "short", "https://evil.example/AbCdEfGhIjKl", f"https://chat.whatsapp.com/{'x' * 65}", "AbCdEfGhIjKl\n", HUGE]
)
_WRONG_SETTINGS: list[dict[str, Any]] = [
    {"name": "x" * 101},
    {"name": "a\nb"},
    {"name": "x", "description": "x" * 2049},
    {"name": "x", "description": "a\tb"},
    {"name": "x", "disappear_after": {"seconds": 1}},
    {"name": "x", "disappear_after": {"seconds": 86_400, "nanos": 1}},
    {"name": HUGE},
]
bad_settings = st.sampled_from(_WRONG_SETTINGS).map(lambda values: group_service_pb2.GroupSettings(**values))
bad_request_id = st.one_of(st.sampled_from(["", " ", "with space", "ü", "x" * 129, "line\n", HUGE]), with_nul)
bad_proxy = st.sampled_from(
    [
        "ftp://proxy.example:21",
        "proxy.example:1080",
        "socks5://",
        "socks5://proxy.example",
        "socks5://proxy.example:0",
        "socks5://proxy.example:65536",
        "socks5://proxy.example:port",
        "socks5://proxy.example:1080/path",
        "socks5://proxy.example:1080?x=1",
        "socks5://proxy.example:1080#x",
        "socks5://user:***@proxy.example:1080",
        "http://[::1:80",
        "http://[v1.x]:80",
        "http://a b:80",
        "http://proxy.example:80\n",
        "http://:80",
        "http://pröxy.example:80",
        "http://-x:80",
        "javascript:alert(1)",
        "http://p.example:80" + "x" * 1000,
        HUGE,
    ]
)
bad_text = st.one_of(st.just(""), st.just("x" * 65537), st.just(HUGE), with_nul)
bad_name = st.one_of(st.just("x" * 201), st.just(HUGE), with_nul)
bad_labels = st.one_of(
    st.dictionaries(bad_id.filter(lambda key: len(key) < 1000), st.just("x"), min_size=1, max_size=3).filter(
        lambda labels: any(not _is_label(key) for key in labels)
    ),
    st.just({str(number): "x" for number in range(33)}),
    st.just({"k": "x" * 201}),
    with_nul.map(lambda text: {"k": text}),
)
bad_token = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=", min_size=1, max_size=200),
    wild_text.filter(bool),
    st.just(HUGE),
)
bad_mask = st.one_of(
    st.sampled_from(
        [[name] for name in ("state", "session_id", "etag", "account.jid", "labels.x", "", "proxyUrl", "name,")]
    ),
    st.just(["name", "*"]),
    st.lists(
        wild_text.filter(lambda path: path not in {"name", "user_id", "labels", "proxy_url", "*"}),
        min_size=1,
        max_size=3,
    ),
    st.just([HUGE]),
)
_UNKNOWN_STATES = st.lists(st.sampled_from([0, 10, 77, -1, 2**31 - 1]), min_size=1, max_size=20)
_UNKNOWN_TYPES = st.lists(st.sampled_from([0, 1000, -1, 2**31 - 1]), min_size=1, max_size=20)

PIN_SECONDS = (86_400, 604_800, 2_592_000)


def _seconds(seconds: int) -> Duration:
    return Duration(seconds=seconds)


bad_target = st.none() | st.sampled_from(
    [
        message_pb2.MessageRef(),
        message_pb2.MessageRef(chat="123456@lid"),
        message_pb2.MessageRef(message_id="A"),
        message_pb2.MessageRef(message_id="A B", chat="123456@lid", from_me=True),
        message_pb2.MessageRef(message_id="A" * 129, chat="123456@lid", from_me=True),
        message_pb2.MessageRef(message_id="A", chat="4917612345678", from_me=True),
        message_pb2.MessageRef(message_id="A", chat="1@newsletter", from_me=True),
        message_pb2.MessageRef(message_id="A", chat="status@broadcast", from_me=True),
        message_pb2.MessageRef(message_id="A", chat="12345-67890@g.us"),
        message_pb2.MessageRef(message_id="A", chat="12345-67890@g.us", sender="12345-67890@g.us"),
        message_pb2.MessageRef(message_id="A", chat="123456@lid", sender="123456:7@lid"),
    ]
)


# For each request, which fields can be wrong and how.
_FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "CreateRequest": {
        "session_id": bad_id.filter(bool),
        "name": bad_name,
        "user_id": bad_name,
        "labels": bad_labels,
        "proxy_url": bad_proxy,
        "request_id": bad_request_id.filter(bool),
    },
    "ListRequest": {
        "page_size": st.integers(-(2**31), -1),
        "page_token": bad_token,
        "user_id": bad_name,
        "states": _UNKNOWN_STATES,
        "labels": st.just({"x" * 64: "x"}),
    },
    "SendRequest": {
        "session_id": bad_id,
        "to": bad_recipient,
        "request_id": bad_request_id,
        "text": bad_text.map(lambda body: message_pb2.Text(body=body)) | st.none(),
        "expiration": st.integers(0, 86_399).map(_seconds),
        "typing_for": st.integers(26, 2**31).map(_seconds),
        "quoted_text": st.just("x" * 1025) | with_nul,
    },
    "EditRequest": {
        "session_id": bad_id,
        "request_id": bad_request_id,
        "target": bad_target,
        "text": bad_text.map(lambda body: message_pb2.Text(body=body)) | st.none(),
    },
    "RevokeRequest": {"session_id": bad_id, "request_id": bad_request_id, "target": bad_target},
    "PinInChatRequest": {
        "session_id": bad_id,
        "request_id": bad_request_id,
        "target": bad_target,
        "duration": st.integers(-(2**31), 2**31).filter(lambda s: s not in PIN_SECONDS).map(_seconds),
    },
    "MarkReadRequest": {
        "session_id": bad_id,
        "chat": bad_recipient | st.just("4917612345678"),
        "message_ids": st.just([]) | st.lists(bad_request_id, min_size=1, max_size=3) | st.just(["A"] * 101),
    },
    "GetRequest": {"session_id": bad_id, "request_id": bad_request_id},
    "WatchRequest": {
        "session_ids": st.lists(bad_id, min_size=1, max_size=3),
        "user_id": bad_name,
        "labels": st.sampled_from([{"x" * 64: "x"}, {"k": "x" * 201}, {str(number): "x" for number in range(33)}]),
        "types": _UNKNOWN_TYPES,
        # A number is a token of the core in memory.
        "resume_token": st.just("") | bad_token.filter(lambda token: not token.isdecimal()),
        "from_start": st.just(False),
    },
    "CheckNumbersRequest": {"session_id": bad_id, "numbers": bad_numbers},
    "GetContactRequest": {"session_id": bad_id, "person": bad_person},
    "ListContactsRequest": {
        "session_id": bad_id,
        "page_size": st.integers(-(2**31), -1),
        "page_token": bad_token,
        "search": st.just("x" * 101) | with_nul,
    },
    "ResolveLidRequest": {"session_id": bad_id, "people": bad_people},
    "GetAboutRequest": {"session_id": bad_id, "person": bad_person},
    "GetPictureRequest": {
        "session_id": bad_id,
        "whose": bad_recipient,
        "known_picture_id": bad_request_id.filter(bool),
    },
    "BlockRequest": {"session_id": bad_id, "person": bad_person},
    "UnblockRequest": {"session_id": bad_id, "person": bad_person},
    "SetNameRequest": {"session_id": bad_id, "name": st.sampled_from(["", "x" * 26, "a\nb", "a\x1b", HUGE]) | with_nul},
    "SetAboutRequest": {"session_id": bad_id, "about": st.sampled_from(["", "x" * 140, "a\tb", HUGE]) | with_nul},
    "SetPictureRequest": {
        "session_id": bad_id,
        "jpeg": st.sampled_from([b"", b"GIF89a", jpeg(64, 63), jpeg(641, 641), jpeg()[:20], b"\xff" * 600_000]),
    },
    "SetPrivacyRequest": {
        "session_id": bad_id,
        "setting": st.sampled_from([0, 77]),
        "audience": st.sampled_from(
            [0, 77, profile_pb2.PRIVACY_AUDIENCE_CONTACTS_EXCEPT, profile_pb2.PRIVACY_AUDIENCE_NONE]
        ),
    },
    "SetChatPresenceRequest": {
        "session_id": bad_id,
        "chat": bad_recipient,
        "activity": st.sampled_from([0, 77]),
    },
    "SubscribeRequest": {"session_id": bad_id, "person": bad_person},
    "RejectRequest": {
        "session_id": bad_id,
        "call_id": bad_request_id,
        "caller": st.sampled_from(["", "4917612345678", "12036@g.us", "1:2@lid", HUGE]) | with_nul,
    },
    "CreateGroupRequest": {
        "session_id": bad_id,
        "settings": bad_settings | st.none() | st.just(group_service_pb2.GroupSettings()),
        "participants": bad_participants,
        "community": bad_group.filter(bool),
    },
    "ListGroupsRequest": {"session_id": bad_id, "page_size": st.integers(-(2**31), -1), "page_token": bad_token},
    "UpdateGroupRequest": {"session_id": bad_id, "group": bad_group, "settings": bad_settings | st.none()},
    "UpdateParticipantsRequest": {
        "session_id": bad_id,
        "group": bad_group,
        "action": st.sampled_from([0, 77]),
        "participants": bad_participants | st.just([]),
    },
    "SetGroupPictureRequest": {
        "session_id": bad_id,
        "group": bad_group,
        "jpeg": st.sampled_from([b"", b"GIF89a", jpeg(64, 63), jpeg(641, 641), jpeg()[:20]]),
    },
    "PreviewInviteRequest": {"session_id": bad_id, "invite": bad_invite},
    "JoinGroupRequest": {"session_id": bad_id, "invite": bad_invite},
    "ListSubGroupsRequest": {"session_id": bad_id, "community": bad_group},
    **{
        name: {"session_id": bad_id, "group": bad_group}
        for name in (
            *("GetGroupRequest", "GetInviteLinkRequest", "ResetInviteLinkRequest"),
            *("LeaveGroupRequest", "ListJoinRequestsRequest"),
        )
    },
    **{
        name: {"session_id": bad_id, "group": bad_group, "community": bad_group}
        for name in ("LinkGroupRequest", "UnlinkGroupRequest")
    },
    "RequestPairingCodeRequest": {"session_id": bad_id, "phone": bad_phone},
}
_SESSION_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "session_id": bad_id,
    "name": bad_name,
    "user_id": bad_name,
    "labels": bad_labels,
    "proxy_url": bad_proxy,
}
_BY_ID: dict[str, st.SearchStrategy[Any]] = {"session_id": bad_id}


@st.composite
def wrong_fields(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[str, bytes]:
    """A well-formed request with at least one field that is wrong."""
    method = draw(st.sampled_from(sorted(METHODS)))
    kind = METHODS[method]
    if kind is session_pb2.UpdateRequest:
        return method, draw(_wrong_update()).SerializeToString()
    strategies = _FIELDS.get(kind.DESCRIPTOR.name, _BY_ID)
    wrong = draw(st.sets(st.sampled_from(sorted(strategies)), min_size=1))
    values = {name: value for name, value in good(kind).items() if name not in wrong}
    values |= {name: draw(strategies[name]) for name in sorted(wrong)}
    return method, kind(**values).SerializeToString()


@st.composite
def rubbish(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[str, bytes]:
    """Bytes that are no message, or a message with a string that is not UTF-8."""
    method = draw(st.sampled_from(sorted(METHODS)))
    number = draw(
        st.sampled_from([field.number for field in METHODS[method].DESCRIPTOR.fields if _is_string(field)] or [1])
    )
    not_text = _tag(number) + b"\x03\xed\xa0\x80"
    truncated = _tag(number) + b"\x64abc"
    return method, draw(st.sampled_from([not_text, truncated, b"\xff" * 20, b"\x07", b"\x0a", b"\x08" + b"\xff" * 11]))


def _tag(number: int) -> bytes:
    """What begins a field of bytes on the wire, a number below 2,048."""
    tag = number << 3 | 2
    return bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])


@st.composite
def anything(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[str, bytes]:
    """Any bytes at all; a few of them are good requests."""
    return draw(st.sampled_from(sorted(METHODS))), draw(st.binary(max_size=200))


@st.composite
def _wrong_update(draw: Callable[[st.SearchStrategy[Any]], Any]) -> session_pb2.UpdateRequest:
    if draw(st.booleans()):
        request = session_pb2.UpdateRequest(session=session_pb2.Session(session_id="known", name="n"))
        request.update_mask.paths.extend(draw(bad_mask))
        return request
    wrong = draw(st.sampled_from(sorted(_SESSION_FIELDS)))
    values = {"session_id": "known"} | {wrong: draw(_SESSION_FIELDS[wrong])}
    request = session_pb2.UpdateRequest(session=session_pb2.Session(**values))
    if wrong != "session_id":
        request.update_mask.paths.append(wrong)
    return request


def good(kind: type[Message]) -> dict[str, Any]:
    """The fields of a request that is right, for a session that is known."""
    values = {name: value for name, value in GOOD.items() if name in kind.DESCRIPTOR.fields_by_name}
    return values | _GOOD_MESSAGES.get(kind, {})


def _is_id(text: str) -> bool:
    return 0 < len(text) < 64 and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def _is_label(key: str) -> bool:
    return _is_id(key.replace("/", "-").replace(".", "-").replace("_", "-"))


def _is_string(field: Any) -> bool:
    return bool(field.type == field.TYPE_STRING)

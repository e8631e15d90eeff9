"""From requests to the core's values. What the schema cannot say is said here, always naming the field.

Requests have passed `service.protocol.validation` before: patterns and lengths that the protos state hold.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from service.domain.errors import FieldViolation, InvalidArgument
from service.domain.proxies import check_proxy, has_hidden_password
from service.ports import Changes, NewSession, SessionFilter
from service.protocol.sessions import state_of
from service.protocol.validation import violations_of
from zap.v1 import session_pb2 as pb

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000
CHANGEABLE = ("name", "user_id", "labels", "proxy_url")
MOST_PATHS = 100
"""In an update_mask."""

_SESSION_ID = re.compile(r"[a-z0-9-]{1,63}")
_CHECKSUM_SIZE = 12


@dataclass(frozen=True)
class Page:
    """Which sessions a List call asks for."""

    chosen: SessionFilter
    after: str
    size: int

    def token(self, last: str) -> str:
        """The token of the page behind the session `last`, good for the same filters only."""
        return _token(self.chosen, last)


def refuse(field: str, description: str, *, reason: str | None = None) -> InvalidArgument:
    """The error for one wrong field."""
    return InvalidArgument([FieldViolation(field, description)], reason=reason)


def new_session(request: pb.CreateRequest) -> NewSession:
    """What Create asks for."""
    _check_proxy("proxy_url", request.proxy_url)
    if has_hidden_password(request.proxy_url):
        raise refuse("proxy_url", "its password is ***, as in what Status shows; give the password itself")
    return NewSession(
        session_id=request.session_id,
        name=request.name,
        user_id=request.user_id,
        labels=dict(request.labels),
        proxy_url=request.proxy_url,
        request_id=request.request_id,
    )


def changes(request: pb.UpdateRequest) -> Changes:
    """What Update asks to change. A proxy_url with *** for its password is for the caller to compare."""
    paths = _changed_paths(request)
    wanted = pb.CreateRequest(session_id=request.session.session_id)
    for path in paths:
        _copy_field(request.session, wanted, path)
    # Session is what the server gives, so it states no limits of its own: those of Create apply.
    found = [] if wanted.session_id else [FieldViolation("session.session_id", "must say which session")]
    found += [FieldViolation(f"session.{v.field}", v.description) for v in violations_of(wanted)]
    if found:
        raise InvalidArgument(found)
    if "proxy_url" in paths:
        _check_proxy("session.proxy_url", wanted.proxy_url)
    return Changes(
        name=wanted.name if "name" in paths else None,
        user_id=wanted.user_id if "user_id" in paths else None,
        labels=dict(wanted.labels) if "labels" in paths else None,
        proxy_url=wanted.proxy_url if "proxy_url" in paths else None,
    )


def page(request: pb.ListRequest) -> Page:
    """Which page List asks for."""
    chosen = SessionFilter(
        user_id=request.user_id,
        states=tuple(sorted({state_of(number) for number in request.states}, key=lambda state: state.name)),
        labels=dict(request.labels),
    )
    after = _position(request.page_token, chosen) if request.page_token else ""
    return Page(chosen, after, min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE))


def recipient(to: str) -> str:
    """The JID of a recipient: one that is given, or that of a phone number."""
    return to if "@" in to else f"{phone_digits(to)}@s.whatsapp.net"


def phone_digits(phone: str) -> str:
    """A phone number without its +."""
    return phone.removeprefix("+")


def _changed_paths(request: pb.UpdateRequest) -> tuple[str, ...]:
    mask: FieldMask = request.update_mask
    if not mask.paths:
        return tuple(path for path in CHANGEABLE if getattr(request.session, path))
    if len(mask.paths) > MOST_PATHS:
        raise InvalidArgument([FieldViolation("update_mask", f"must not name more than {MOST_PATHS} fields")])
    if list(mask.paths) == ["*"]:
        return CHANGEABLE
    wrong = sorted(set(mask.paths) - set(CHANGEABLE))
    if wrong:
        raise InvalidArgument([FieldViolation("update_mask", _mask_problem(path)) for path in wrong])
    return tuple(path for path in CHANGEABLE if path in mask.paths)


def _mask_problem(path: str) -> str:
    known = path in pb.Session.DESCRIPTOR.fields_by_name
    problem = "cannot be changed" if known else "is not a field of a session"
    return f"{path[:100]!r} {problem}; these can be: {', '.join(CHANGEABLE)}"


def _copy_field(source: pb.Session, target: pb.CreateRequest, path: str) -> None:
    if path == "labels":
        target.labels.update(source.labels)
    else:
        setattr(target, path, getattr(source, path))


def _check_proxy(field: str, url: str) -> None:
    if not url:
        return
    try:
        check_proxy(url)
    except ValueError as error:
        raise refuse(field, str(error)) from error


def _token(chosen: SessionFilter, last: str) -> str:
    return base64.urlsafe_b64encode(_checksum(chosen, last) + last.encode()).decode().rstrip("=")


def _checksum(chosen: SessionFilter, last: str) -> bytes:
    """Binds a position to its filters. Not a secret: a position gives nothing that the filters do not."""
    states = [state.name for state in chosen.states]
    bound = json.dumps([1, chosen.user_id, states, sorted(chosen.labels.items()), last])
    return hashlib.sha256(bound.encode()).digest()[:_CHECKSUM_SIZE]


def _position(token: str, chosen: SessionFilter) -> str:
    wrong = refuse("page_token", "must be next_page_token of the page before, unchanged and with the same filters")
    try:
        # Python takes characters outside of the alphabet for noise and skips them; nobody else's token has any.
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        last = data[_CHECKSUM_SIZE:].decode("ascii")
    except (binascii.Error, UnicodeError) as error:
        raise wrong from error
    # The last character has bits to spare, which a decoder ignores: what is not what we wrote is not ours.
    if not _SESSION_ID.fullmatch(last) or _token(chosen, last) != token:
        raise wrong
    return last

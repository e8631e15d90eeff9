"""Convert requests to the core's values, and check what the schema cannot express. Every error names its field.

Requests have passed `service.protocol.validation` before, so the patterns and lengths of the protos hold.
"""

import re
from dataclasses import dataclass
from typing import Any

from service.domain.errors import FieldViolation, InvalidArgument
from service.domain.proxies import check_proxy, has_hidden_password
from service.ports.sessions import Changes, NewSession, SessionFilter
from service.protocol import page_tokens
from service.protocol.field_masks import changed_fields
from service.protocol.sessions import state_of
from service.protocol.validation import violations_of
from zap.v1 import session_pb2 as pb

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_CHANGEABLE_FIELDS = ("name", "user_id", "labels", "proxy_url")

_SESSION_ID = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True)
class Page:
    """Says which sessions a List call requests."""

    chosen: SessionFilter
    after: str
    size: int


def refuse(field: str, description: str, *, reason: str | None = None) -> InvalidArgument:
    """Return the error for one wrong field."""
    return InvalidArgument([FieldViolation(field, description)], reason=reason)


def new_session(request: pb.CreateRequest) -> NewSession:
    """Return the session that Create requests."""
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
    """Return the changes that Update requests. A proxy_url with *** for its password passes: the caller compares it."""
    paths = changed_fields(request.update_mask, request.session, _CHANGEABLE_FIELDS, "a session")
    values: dict[str, Any] = {path: getattr(request.session, path) for path in paths}
    wanted = pb.CreateRequest(session_id=request.session.session_id, **values)
    # The schema of Session has no limits, since the server fills it: check with those of Create.
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
    """Return the page that List requests."""
    chosen = SessionFilter(
        user_id=request.user_id,
        states=tuple(sorted({state_of(number) for number in request.states}, key=lambda state: state.name)),
        labels=dict(request.labels),
    )
    after = _last_of_token(request.page_token, chosen) if request.page_token else ""
    return Page(chosen, after, min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE))


def phone_digits(phone: str) -> str:
    """Return a phone number without its +."""
    return phone.removeprefix("+")


def _check_proxy(field: str, url: str) -> None:
    if not url:
        return
    try:
        check_proxy(url)
    except ValueError as error:
        raise refuse(field, str(error)) from error


def page_token(chosen: SessionFilter, last: str) -> str:
    """Return the token of the page after the session `last`. It is valid for the same filters only."""
    return page_tokens.write(_filters(chosen), last)


def _filters(chosen: SessionFilter) -> list[object]:
    return [1, chosen.user_id, [state.name for state in chosen.states], sorted(chosen.labels.items())]


def _last_of_token(token: str, chosen: SessionFilter) -> str:
    try:
        last = page_tokens.read(token, _filters(chosen))
    except ValueError as error:
        raise wrong_page_token() from error
    if not _SESSION_ID.fullmatch(last):
        raise wrong_page_token()
    return last


def wrong_page_token() -> InvalidArgument:
    """Return the error for a page token that is not one of the same filters."""
    return refuse("page_token", "must be next_page_token of the page before, unchanged and with the same filters")

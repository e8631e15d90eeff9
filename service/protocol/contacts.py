"""Convert requests about people, profile and presence to the core's values, and values of the core to zap.v1."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.domain.contacts import Contact, ContactFilter, PersonAddress
from service.domain.number_checks import NumberAnswer
from service.protocol import page_tokens
from service.protocol.jpeg import jpeg_size
from service.protocol.parsing import refuse, wrong_page_token
from zap.v1 import address_pb2, profile_pb2
from zap.v1 import contact_pb2 as pb

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_MAX_PICTURE_PIXELS = 640
_NumberCheck = pb.NumberCheck
_Setting = profile_pb2.SetPrivacyRequest
_ALL, _CONTACTS, _NONE = (
    profile_pb2.PRIVACY_AUDIENCE_ALL,
    profile_pb2.PRIVACY_AUDIENCE_CONTACTS,
    profile_pb2.PRIVACY_AUDIENCE_NONE,
)
_ALLOWED: Mapping[int, Sequence["profile_pb2.PrivacyAudience.ValueType"]] = {
    _Setting.SETTING_GROUP_ADD: (_ALL, _CONTACTS, _NONE),
    _Setting.SETTING_LAST_SEEN: (_ALL, _CONTACTS, _NONE),
    _Setting.SETTING_ABOUT: (_ALL, _CONTACTS, _NONE),
    _Setting.SETTING_PICTURE: (_ALL, _CONTACTS, _NONE),
    _Setting.SETTING_READ_RECEIPTS: (_ALL, _NONE),
    _Setting.SETTING_CALLS: (_ALL, profile_pb2.PRIVACY_AUDIENCE_KNOWN),
    _Setting.SETTING_ONLINE: (_ALL, profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN),
}
"""What callers can set. CONTACTS_EXCEPT needs a list of exceptions, which the library cannot send."""


@dataclass(frozen=True)
class ContactPage:
    """Says which contacts a List call requests."""

    chosen: ContactFilter
    after: str
    size: int


def contact_page(request: pb.ListContactsRequest) -> ContactPage:
    """Return the page that List requests."""
    chosen = ContactFilter(request.search, request.is_saved)
    after = ""
    if request.page_token:
        try:
            after = page_tokens.read(request.page_token, _filters(chosen))
        except ValueError as error:
            raise wrong_page_token() from error
    return ContactPage(chosen, after, min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE))


def contact_page_token(chosen: ContactFilter, last: str) -> str:
    """Return the token of the page after the contact with this JID."""
    return page_tokens.write(_filters(chosen), last)


def _filters(chosen: ContactFilter) -> list[object]:
    return ["contacts", chosen.search, chosen.is_saved]


def check_picture(jpeg: bytes) -> None:
    """Raise InvalidArgument unless WhatsApp takes the picture."""
    size = jpeg_size(jpeg)
    if size is None:
        raise refuse("jpeg", "must be a JPEG")
    width, height = size
    if not 0 < width == height <= _MAX_PICTURE_PIXELS:
        raise refuse(
            "jpeg", f"must be as wide as high, and at most {_MAX_PICTURE_PIXELS} pixels; it is {width} by {height}"
        )


def check_privacy(request: profile_pb2.SetPrivacyRequest) -> None:
    """Raise InvalidArgument unless the setting allows the audience."""
    allowed = _ALLOWED[request.setting]
    if request.audience not in allowed:
        setting = _Setting.Setting.Name(request.setting)
        names = ", ".join(profile_pb2.PrivacyAudience.Name(audience) for audience in allowed)
        raise refuse("audience", f"{setting} can be set to {names}")


def address_message(address: PersonAddress) -> address_pb2.Address:
    """Return an address as callers get it."""
    return address_pb2.Address(jid=address.jid, phone=address.phone, lid=address.lid)


def contact_message(contact: Contact) -> pb.Contact:
    """Return a contact as callers get it."""
    return pb.Contact(
        address=address_message(contact.address),
        full_name=contact.full_name,
        first_name=contact.first_name,
        push_name=contact.push_name,
        business_name=contact.business_name,
    )


def number_checks(
    numbers: Iterable[tuple[str, str]], answers: Mapping[str, NumberAnswer], addresses: Mapping[str, PersonAddress]
) -> pb.CheckNumbersResponse:
    """Return the results. `numbers`: as in the request, and its digits; `addresses`: by JID."""
    return pb.CheckNumbersResponse(
        checks=[_number_check(text, digits, answers.get(digits), addresses) for text, digits in numbers]
    )


def _number_check(
    text: str, digits: str, answer: NumberAnswer | None, addresses: Mapping[str, PersonAddress]
) -> pb.NumberCheck:
    if not digits:
        return _NumberCheck(number=text, result=_NumberCheck.RESULT_INVALID)
    if answer is None:
        return _NumberCheck(number=text, result=_NumberCheck.RESULT_NO_ANSWER)
    if not answer.is_on_whatsapp:
        return _NumberCheck(number=text, result=_NumberCheck.RESULT_NOT_ON_WHATSAPP)
    return _NumberCheck(
        number=text,
        result=_NumberCheck.RESULT_ON_WHATSAPP,
        address=address_message(addresses[answer.jid]),
        business_name=answer.business_name,
    )

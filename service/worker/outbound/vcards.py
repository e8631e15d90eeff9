"""Writes vCards (RFC 2426, as WhatsApp's applications write them) from contact cards."""

from zap.v1 import message_pb2 as pb

_ESCAPES = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": ""})


def vcard(card: pb.ContactCards.Card) -> str:
    """Return the vCard of a contact card."""
    name = card.name.translate(_ESCAPES)
    lines = ["BEGIN:VCARD", "VERSION:3.0", f"N:;{name};;;", f"FN:{name}"]
    if card.organization:
        lines.append(f"ORG:{card.organization.translate(_ESCAPES)};")
    for phone in card.phones:
        digits = phone.removeprefix("+")
        # By waid, the applications offer to write to the number.
        lines.append(f"TEL;type=CELL;type=VOICE;waid={digits}:+{digits}")
    return "\n".join([*lines, "END:VCARD"])

"""Converts locations, contact cards, group invitations and appointments."""

from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, PICTURE, VCARD, Bounds, moment
from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb


def location(body: Any, reading: Reading) -> pb.LocationContent:
    """Convert a fixed location."""
    bounds = reading.bounds
    return pb.LocationContent(
        latitude=body.degreesLatitude,
        longitude=body.degreesLongitude,
        name=bounds.text(body.name),
        address=bounds.text(body.address, ADDRESS),
        url=bounds.text(body.URL, ADDRESS),
        comment=bounds.text(body.comment, BODY),
        is_live=body.isLive,
        accuracy=body.accuracyInMeters,
        speed=body.speedInMps,
        heading=body.degreesClockwiseFromMagneticNorth,
        thumbnail=bounds.data(body.JPEGThumbnail, PICTURE),
    )


def live_location(body: Any, reading: Reading) -> pb.LocationContent:
    """Convert a live location."""
    return pb.LocationContent(
        latitude=body.degreesLatitude,
        longitude=body.degreesLongitude,
        comment=reading.bounds.text(body.caption, BODY),
        is_live=True,
        accuracy=body.accuracyInMeters,
        speed=body.speedInMps,
        heading=body.degreesClockwiseFromMagneticNorth,
        sequence_number=body.sequenceNumber,
        thumbnail=reading.bounds.data(body.JPEGThumbnail, PICTURE),
    )


def contact(body: Any, reading: Reading) -> pb.ContactsContent:
    """Convert one contact card."""
    return pb.ContactsContent(cards=[_card(body, reading.bounds)])


def contacts(body: Any, reading: Reading) -> pb.ContactsContent:
    """Convert several contact cards."""
    bounds = reading.bounds
    cards = [_card(card, bounds) for card in bounds.items(body.contacts)]
    return pb.ContactsContent(title=bounds.text(body.displayName), cards=cards)


def _card(body: Any, bounds: Bounds) -> pb.ContactCard:
    return pb.ContactCard(name=bounds.text(body.displayName), vcard=bounds.text(body.vcard, VCARD))


def group_invitation(body: Any, reading: Reading) -> pb.GroupInvitationContent:
    """Convert an invitation to a group, without its code, with which any account could join."""
    bounds = reading.bounds
    return pb.GroupInvitationContent(
        group=bounds.text(body.groupJID),
        name=bounds.text(body.groupName),
        caption=bounds.text(body.caption, BODY),
        expire_time=moment(body.inviteExpiration),
    )


def appointment(body: Any, reading: Reading) -> pb.AppointmentContent:
    """Convert what WhatsApp calls an event."""
    bounds = reading.bounds
    return pb.AppointmentContent(
        name=bounds.text(body.name),
        description=bounds.text(body.description, BODY),
        location=location(body.location, reading) if body.HasField("location") else None,
        join_link=bounds.text(body.joinLink, ADDRESS),
        start_time=moment(body.startTime),
        end_time=moment(body.endTime),
        is_cancelled=body.isCanceled,
    )

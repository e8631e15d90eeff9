import pytest
from neonize import events

from service.worker.inbound.events import registry
from zap.v1 import group_pb2


def test_what_is_told_is_what_is_subscribed() -> None:
    assert set(registry.SUBSCRIBED) <= set(events.EVENT_TO_INT)
    read_as = {registry.FORMS.get(kind, kind) for kind in registry.SUBSCRIBED}
    assert read_as == set(registry.DURABLE) | set(registry.EPHEMERAL)


@pytest.mark.parametrize("word", ["link", "invite", "code"])
def test_no_event_has_a_place_for_an_invite_link(word: str) -> None:
    places = {
        field.name
        for message in group_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.type == field.TYPE_STRING
    }
    assert not any(word in place for place in places)

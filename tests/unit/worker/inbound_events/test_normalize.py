import pytest
from neonize.proto import Neonize_pb2 as neonize

from service.worker.addresses import from_text
from service.worker.inbound.events.normalize import attributes, dated_frame, words
from zap.v1 import event_pb2, picture_pb2

ANNA = picture_pb2.PictureChanged(whose="1@lid")
BOB = picture_pb2.PictureChanged(whose="2@lid")
PICTURE = event_pb2.Event.TYPE_PICTURE_CHANGED
THEN = 1_700_000_000


def test_the_same_at_one_moment_is_told_once() -> None:
    first, again = (dated_frame(THEN, PICTURE, picture_changed=ANNA) for _ in range(2))
    assert len(first.origin) == 16
    assert first.origin == again.origin
    others = [dated_frame(THEN, PICTURE, picture_changed=BOB), dated_frame(THEN + 1, PICTURE, picture_changed=ANNA)]
    assert first.origin not in {other.origin for other in others}


@pytest.mark.parametrize("seconds", [0, 2**62])
def test_what_has_no_time_can_happen_twice(seconds: int) -> None:
    frame, again = (dated_frame(seconds, PICTURE, picture_changed=ANNA) for _ in range(2))
    assert not frame.HasField("time")
    # Only what the node itself repeats, the very same frame, is one event.
    assert len(frame.origin) == 16
    assert frame.origin != again.origin


def test_words_are_short_and_valid() -> None:
    assert words("x" * 500) == "x" * 100
    assert words(b"caf\xe9") == "caf\N{REPLACEMENT CHARACTER}"


def test_attributes_of_every_kind_are_text() -> None:
    shown = neonize.Node(
        Tag="offer",
        Attrs=[
            neonize.NodeAttrs(name="call-id", text="A"),
            neonize.NodeAttrs(name="count", integer=3),
            neonize.NodeAttrs(name="joinable", boolean=True),
            neonize.NodeAttrs(name="group-jid", jid=from_text("1@g.us")),
            neonize.NodeAttrs(name="nothing"),
        ],
    )
    assert attributes(shown) == {
        "call-id": "A",
        "count": "3",
        "joinable": "True",
        "group-jid": "1@g.us",
        "nothing": "",
    }

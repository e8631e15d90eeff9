"""Which of the library's events are told, and by what."""

from collections.abc import Callable, Mapping
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.worker.inbound.events import calls, groups, history, people, presences
from service.worker.inbound.events.presences import Momentary
from zap.worker.v1 import frames_pb2, history_pb2

DURABLE: Mapping[type[Any], Callable[[Any], frames_pb2.Frame | None]] = {
    neonize.CallOffer: calls.offered,
    neonize.CallOfferNotice: calls.announced,
    neonize.CallAccept: calls.accepted,
    neonize.CallTerminate: calls.ended,
    neonize.GroupInfoEvent: groups.changed,
    neonize.JoinedGroup: groups.entered,
    neonize.Picture: people.picture_changed,
    neonize.IdentityChange: people.identity_changed,
    history_pb2.HistoryPiece: history.synced,
}
"""What is told once and must not be lost."""

EPHEMERAL: Mapping[type[Any], Callable[[Any], Momentary]] = {
    neonize.Presence: presences.presence,
    neonize.ChatPresence: presences.chat_presence,
}
"""What is worth nothing a moment later."""

FORMS: Mapping[type[Any], type[Any]] = {neonize.HistorySync: history_pb2.HistoryPiece}
"""What is read in a form of our own, that skips most of it."""

SUBSCRIBED = (*(kind for kind in DURABLE if kind not in FORMS.values()), *EPHEMERAL, *FORMS)
"""The library's own forms of all of them."""

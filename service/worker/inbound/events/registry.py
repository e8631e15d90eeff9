"""Lists the library's events that are reported, with their converters."""

from collections.abc import Callable, Mapping
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.worker.inbound.events import calls, groups, history, people, presences
from service.worker.inbound.events.presences import EphemeralEvent
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
"""Converters of durable events, which are committed to the log."""

EPHEMERAL: Mapping[type[Any], Callable[[Any], EphemeralEvent]] = {
    neonize.Presence: presences.presence,
    neonize.ChatPresence: presences.chat_presence,
}
"""Converters of ephemeral events, which may be dropped."""

FORMS: Mapping[type[Any], type[Any]] = {neonize.HistorySync: history_pb2.HistoryPiece}
"""Events that are parsed as a smaller message of zap.worker.v1, which skips most of their content."""

SUBSCRIBED = (*(kind for kind in DURABLE if kind not in FORMS.values()), *EPHEMERAL, *FORMS)
"""The library's types of all these events."""

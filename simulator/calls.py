"""Lets people call linked devices, which can only reject a call or let it ring."""

from __future__ import annotations

import enum
import secrets
import time
from dataclasses import dataclass, field

from simulator import stanzas
from simulator.accounts import Account, Companion
from simulator.announcing import announce
from simulator.binary_xml import Attrs, Node, Value, node
from simulator.bookkeeping import Ledger
from simulator.groups import Group


class CallState(enum.StrEnum):
    """How far a call has come."""

    RINGING = "ringing"
    REJECTED = "rejected"
    ENDED = "ended"


class Media(enum.StrEnum):
    """The media of a call."""

    AUDIO = "audio"
    VIDEO = "video"


@dataclass(eq=False)
class Call:
    """A call from a phone to a person or a group."""

    caller: Account
    to: Account | Group
    media: Media
    id: str = field(default_factory=lambda: secrets.token_hex(16).upper())
    state: CallState = CallState.RINGING
    at: float = field(default_factory=time.time)

    @property
    def called(self) -> list[Account]:
        """The people whose devices ring: not those who have blocked the caller."""
        people = [self.to] if isinstance(self.to, Account) else self.to.members
        return [it for it in people if it is not self.caller and self.caller.lid not in it.profile.blocked]

    def step(self, tag: str, *content: Node, **attrs: Value | None) -> Node:
        """Return a step of the call, for example <terminate>."""
        about: Attrs = {"call-id": self.id, "call-creator": self.caller.lid_jid(), **attrs}
        return stanzas.call(self.caller.lid_jid(), node(tag, about, *content))


class UnknownCall(LookupError):
    """No call has this id."""


class Calls:
    """All calls, in order."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_id: dict[str, Call] = {}

    def of(self, caller: Account) -> list[Call]:
        """Return the calls of a person."""
        return [call for call in self._by_id.values() if call.caller is caller]

    def offer(self, caller: Account, to: Account | Group, media: Media) -> Call:
        """Call a person or a group: their linked devices ring."""
        call = Call(caller, to, media)
        self._by_id[call.id] = call
        if isinstance(to, Account):
            video = [node("video")] if media is Media.VIDEO else []
            offered = call.step(
                "offer", node("audio", {"enc": "opus", "rate": 16000}), *video, caller_pn=caller.pn_jid()
            )
        else:
            offered = call.step("offer_notice", media=media.value, type="group")
        announce(offered, call.called)
        return call

    def hang_up(self, caller: Account, call_id: str) -> None:
        """End a call that rings. Raise UnknownCall."""
        call = self._by_id.get(call_id)
        if call is None or call.caller is not caller:
            raise UnknownCall(f"{caller.pn} has made no call {call_id}")
        if call.state is CallState.RINGING:
            call.state = CallState.ENDED
            announce(call.step("terminate"), call.called)

    def take(self, device: Companion, stanza: Node) -> None:
        """Process a client's <call>: the caller hears of a rejection, and the call ends on all devices."""
        reject = stanza.find("reject")
        call = self._by_id.get(reject.text("call-id")) if reject else None
        if call is None or device.account not in call.called:
            self._ledger.note_unknown("call/" + (stanza.children[0].tag if stanza.children else ""))
            return
        if call.state is CallState.RINGING and isinstance(call.to, Account):
            call.state = CallState.REJECTED
            announce(call.step("terminate"), call.called)

"""A typed client of the control interface, with which tests and the demo drive the simulator."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from simulator import stanzas
from simulator.binary_xml import Node
from simulator.letters import Letter
from simulator.person_control import PersonControl
from simulator.views import (
    Addresses,
    DeliveryView,
    DeviceView,
    GroupView,
    InboxView,
    LinkView,
    NewsletterView,
    PhoneView,
    SentView,
    StateView,
    UnreadableView,
    View,
    from_json,
)

T = TypeVar("T")

_POLL_SECONDS = 0.02
#: Long, because linking waits for the client and for a test that holds one of its steps.
_DEADLINE = aiohttp.ClientTimeout(total=300)


class ControlError(Exception):
    """The simulator refused a request."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.status = status
        self.kind = kind


class SimulatorControl:
    """A running simulator.

    `target` is a phone number, a device's address, or empty for all. Clients that are not linked yet (drop, kick,
    end_stream, fail) go by "unpaired", and by the user name that they give the proxy.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the simulator, which keeps running."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- the simulator as a whole

    async def addresses(self) -> Addresses:
        """Return the addresses of the simulator."""
        return await self._get(Addresses, "/addresses")

    async def state(self) -> StateView:
        """Return the counters of the whole simulator."""
        return await self._get(StateView, "/state")

    # --- phones

    async def create_phone(self, pn: str, push_name: str | None = None) -> PhoneView:
        """Return the phone with this number, and create it with an account if there is none."""
        body = {"pn": pn} if push_name is None else {"pn": pn, "push_name": push_name}
        return from_json(PhoneView, await self._call("POST", "/phones", body))

    async def phones(self) -> list[PhoneView]:
        """Return all phones."""
        return await self._list(PhoneView, "/phones")

    async def phone(self, pn: str) -> PhoneView:
        """Return one phone."""
        return await self._get(PhoneView, f"/phones/{pn}")

    async def send_read_receipts(self, pn: str, *, enabled: bool = True) -> None:
        """Make a phone send a read receipt for each message as it arrives."""
        await self._call("PATCH", f"/phones/{pn}", {"sends_read_receipts": enabled})

    async def address_by(self, pn: str, addressing: str) -> None:
        """Set the address of a phone's messages: "lid", "number", or "number-alone" without the hidden id."""
        await self._call("PATCH", f"/phones/{pn}", {"addressing": addressing})

    async def set_clock_ahead(self, pn: str, seconds: int) -> None:
        """Set the seconds by which the times of a phone's messages are ahead of the clock."""
        await self._call("PATCH", f"/phones/{pn}", {"seconds_ahead": seconds})

    async def scan(self, pn: str, qr_text: str, flaw: str = "none") -> LinkView:
        """Scan a QR code. Flaws: bad-hmac, passkey, refresh, refused-login. Returns when the client has answered."""
        return from_json(LinkView, await self._call("POST", f"/phones/{pn}/scan", {"qr": qr_text, "flaw": flaw}))

    async def type_code(self, pn: str, code: str, flaw: str = "none") -> LinkView:
        """Type a linking code that a client shows for this phone number."""
        return from_json(LinkView, await self._call("POST", f"/phones/{pn}/type-code", {"code": code, "flaw": flaw}))

    def person(self, pn: str) -> PersonControl:
        """Return the means to let the person with this phone number act: profile, contacts, groups."""
        return PersonControl(pn, self._call)

    async def switch_off(self, pn: str) -> None:
        """Switch a phone off: its stanzas wait at the server. Its linked devices stay on."""
        await self._call("POST", f"/phones/{pn}/off")

    async def switch_on(self, pn: str) -> None:
        """Switch a phone on, and deliver the stanzas that waited."""
        await self._call("POST", f"/phones/{pn}/on")

    async def write(self, pn: str, to: str, text: str, *, begin_anew: bool = False, is_garbled: bool = False) -> str:
        """Write a text from one phone number to another or to a group. Return the message's id.

        begin_anew: as the first message of a conversation, with prekeys (pkmsg), or in a group with a new sender key.
        is_garbled: linked devices cannot decrypt it, and get it whole when they ask again.
        """
        body = {"to": to, "text": text, "begin_anew": begin_anew, "is_garbled": is_garbled}
        return str((await self._call("POST", f"/phones/{pn}/messages", body))["id"])

    async def edit(self, pn: str, message_id: str, text: str) -> str:
        """Edit a message of this phone. Return the id of the edit."""
        return str((await self._call("POST", f"/phones/{pn}/edit", {"id": message_id, "text": text}))["id"])

    async def repeat(self, pn: str, message_id: str) -> None:
        """Send a message of this phone again, with the same id, encrypted anew."""
        await self._call("POST", f"/phones/{pn}/repeat", {"id": message_id})

    async def post(self, pn: str, to: str, letter: Letter) -> str:
        """Send a message of any kind from one phone number to another or to a group. Return the message's id."""
        body = {**vars(letter), "to": to, "content": base64.b64encode(letter.content).decode()}
        return str((await self._call("POST", f"/phones/{pn}/letters", body))["id"])

    async def share_history(self, pn: str, history: bytes) -> int:
        """Send a phone's linked devices a piece of history, a serialised HistorySync. Return the number of devices."""
        return int((await self._call("POST", f"/phones/{pn}/history", data=history))["affected"])

    async def sent(self, pn: str) -> list[SentView]:
        """Return the messages that a phone wrote, with their receipts."""
        return await self._list(SentView, f"/phones/{pn}/messages")

    async def inbox(self, pn: str) -> list[InboxView]:
        """Return the messages that arrived at a phone, including those of its linked devices."""
        return await self._list(InboxView, f"/phones/{pn}/inbox")

    async def unreadable(self, pn: str) -> list[UnreadableView]:
        """Return the messages that a phone has not been able to read."""
        return await self._list(UnreadableView, f"/phones/{pn}/unreadable")

    async def mark_read(self, pn: str, message_id: str) -> None:
        """Send a read receipt for a message."""
        await self._call("POST", f"/phones/{pn}/read", {"id": message_id})

    async def wait_for_inbox(self, pn: str, text: str, timeout: float = 10.0) -> InboxView:
        """Wait until a message with this text has arrived at a phone."""

        async def arrived() -> InboxView | None:
            return next((message for message in await self.inbox(pn) if message.text == text), None)

        return await wait_for(arrived, timeout, f"{text!r} at {pn}")

    async def wait_for_given_up(self, pn: str, message_id: str, timeout: float = 10.0) -> UnreadableView:
        """Wait until a phone no longer asks for a message that it could not read."""

        async def given_up() -> UnreadableView | None:
            return next((it for it in await self.unreadable(pn) if it.id == message_id and it.is_given_up), None)

        return await wait_for(given_up, timeout, f"the end of the retries of {message_id}")

    async def wait_for_receipt(self, pn: str, message_id: str, timeout: float = 10.0) -> SentView:
        """Wait until a *linked* device has confirmed a message that this phone wrote."""

        async def confirmed() -> SentView | None:
            sent = next((message for message in await self.sent(pn) if message.id == message_id), None)
            by_linked = [receipt for receipt in sent.receipts if ":" in receipt.device] if sent else []
            return sent if any(receipt.type != "retry" for receipt in by_linked) else None

        return await wait_for(confirmed, timeout, f"a receipt for {message_id}")

    # --- groups

    async def create_group(self, creator: str, subject: str, members: Sequence[str]) -> GroupView:
        """Have a person create a group with these people."""
        body = {"creator": creator, "subject": subject, "members": list(members)}
        return from_json(GroupView, await self._call("POST", "/groups", body))

    async def groups(self) -> list[GroupView]:
        """Return all groups."""
        return await self._list(GroupView, "/groups")

    async def group(self, jid: str) -> GroupView:
        """Return one group."""
        return await self._get(GroupView, f"/groups/{jid}")

    async def newsletter(self, jid: str) -> NewsletterView:
        """Return one newsletter. Raise LookupError if there is none."""
        for newsletter in await self._list(NewsletterView, "/newsletters"):
            if newsletter.jid == jid:
                return newsletter
        raise LookupError(f"no newsletter has the address {jid}")

    # --- linked devices

    async def devices(self) -> list[DeviceView]:
        """Return all devices that are or were linked."""
        return await self._list(DeviceView, "/devices")

    async def device(self, jid: str) -> DeviceView:
        """Return one device, by PN address (`number:device@s.whatsapp.net`)."""
        return await self._get(DeviceView, f"/devices/{jid}")

    async def deliveries(self, jid: str) -> list[DeliveryView]:
        """Return the outcome of each message for a device, oldest first."""
        return await self._list(DeliveryView, f"/devices/{jid}/messages")

    async def wait_for_device(
        self, jid: str, condition: Callable[[DeviceView], bool], timeout: float = 10.0
    ) -> DeviceView:
        """Wait until a device's record satisfies a condition."""

        async def satisfied() -> DeviceView | None:
            device = await self.device(jid)
            return device if condition(device) else None

        return await wait_for(satisfied, timeout, f"the state of {jid}")

    async def wait_for_connected(self, jid: str, logins: int = 1, timeout: float = 10.0) -> DeviceView:
        """Wait until a device has logged in at least this often and is connected."""
        return await self.wait_for_device(jid, lambda it: it.connections > 0 and it.logins >= logins, timeout)

    async def drop(self, target: str = "") -> int:
        """Cut connections. Return their number."""
        return await self._affect("/devices/drop", target=target)

    async def kick(self, target: str = "", code: int = 503) -> int:
        """End connections with a stream error. Return their number."""
        return await self._affect("/devices/kick", target=target, code=code)

    async def end_stream(self, target: str = "") -> int:
        """End connections with <xmlstreamend/>. Return their number."""
        return await self._affect("/devices/end-stream", target=target)

    async def replace(self, target: str = "") -> int:
        """End connections as if other clients had logged in with the same keys. Return their number."""
        return await self._affect("/devices/replace", target=target)

    async def ban(self, target: str = "", code: int = 101, expire: int = 3600) -> int:
        """Cut connections and answer logins with a temporary ban until faults are cleared. Return the number cut."""
        return await self._affect("/devices/ban", target=target, code=code, expire=expire)

    async def log_out(self, target: str) -> int:
        """Unlink devices from the phone, at once or at their next login. Return their number."""
        return await self._affect("/devices/log-out", target=target)

    async def send_receipt(self, target: str, sender: str, kind: str) -> int:
        """Send devices a receipt of any type from this number for a non-existent message. Return their number."""
        return await self._affect("/devices/receipt", target=target, sender=sender, type=kind)

    async def deliver(self, target: str, stanza: Node) -> int:
        """Send devices a stanza of any kind until they confirm it. Return their number."""
        return await self._affect("/devices/stanza", target=target, stanza=stanzas.to_json(stanza))

    # --- faults

    async def fail(
        self,
        reason: int,
        target: str = "",
        *,
        code: int | None = None,
        expire: int | None = None,
        times: int | None = 1,
    ) -> None:
        """Answer logins with <failure>; `times=None` until cleared."""
        body = {"target": target, "reason": reason, "code": code, "expire": expire, "times": times}
        await self._call("POST", "/faults/fail-logins", body)

    async def refuse_connections(self, how: str = "abort", times: int | None = None) -> None:
        """Refuse new connections by abort, http (502) or tls, `times` times or until faults are cleared."""
        await self._call("POST", "/faults/refuse-connections", {"how": how, "times": times})

    async def drop_before_ack(self, target: str = "", times: int | None = 1, *, is_taken: bool = True) -> None:
        """Cut the connection at a message instead of acknowledging it, whether or not the server has accepted it."""
        await self._call("POST", "/faults/drop-before-ack", {"target": target, "times": times, "is_taken": is_taken})

    async def refuse_messages(self, code: int, target: str = "", times: int | None = 1) -> None:
        """Acknowledge messages with an error instead of accepting them."""
        await self._call("POST", "/faults/refuse-messages", {"target": target, "code": code, "times": times})

    async def fail_queries(
        self, namespace: str, code: int, text: str = "", *, target: str = "", times: int | None = 1
    ) -> None:
        """Answer queries of a namespace with an error."""
        body = {"namespace": namespace, "code": code, "text": text, "target": target, "times": times}
        await self._call("POST", "/faults/fail-queries", body)

    async def drop_at_confirmation(self, target: str = "", times: int | None = 1) -> None:
        """Cut the connection at the receipt of a message or the ack of a receipt, which is then repeated."""
        await self._call("POST", "/faults/drop-at-confirmation", {"target": target, "times": times})

    async def make_unreadable(self, pn: str, sender: str = "", *, how: str = "lost", times: int | None = 1) -> None:
        """Make a phone lose the keys it shares with the sending device (or damage them) at its next messages.

        `sender` is a phone number or a device's address; empty for all. Answers to retries count as messages, too.
        """
        body = {"target": pn, "sender": sender, "how": how, "times": times}
        await self._call("POST", "/faults/unreadable", body)

    async def mute_keepalives(self, target: str = "", *, muted: bool = True) -> None:
        """Stop answering keepalives, or answer them again."""
        await self._call("POST", "/faults/mute-keepalives", {"target": target, "muted": muted})

    async def hold_queries(self, namespace: str = "", target: str = "", times: int | None = 1) -> None:
        """Leave queries of a namespace unanswered until they are released."""
        await self._call("POST", "/faults/hold-queries", {"namespace": namespace, "target": target, "times": times})

    async def wait_for_held_queries(self, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until this number of queries is held."""

        async def held() -> bool | None:
            return (await self.state()).held_queries >= count or None

        await wait_for(held, timeout, f"{count} held queries")

    async def release_queries(self) -> int:
        """Answer the held queries. Return their number."""
        return await self._affect("/faults/release-queries")

    async def set_latency(self, seconds: float) -> None:
        """Delay every stanza to clients."""
        await self._call("POST", "/faults/latency", {"seconds": seconds})

    async def set_qr_refs(self, count: int) -> None:
        """Set the number of QR codes for the next clients: 6 last 60+5*20 seconds, other numbers 20 seconds each."""
        await self._call("POST", "/faults/qr-refs", {"count": count})

    async def clear_faults(self) -> None:
        """Clear all faults and release what is held."""
        await self._call("DELETE", "/faults")

    async def hold(self, step: str) -> None:
        """Hold all clients at a step: pair-success, 515, login."""
        await self._call("POST", f"/steps/{step}/hold")

    async def release(self, step: str) -> None:
        """Release a step."""
        await self._call("POST", f"/steps/{step}/release")

    async def wait_for_held(self, step: str, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until this number of clients waits at a step."""

        async def waiting() -> bool | None:
            return (await self.state()).waiting.get(step, 0) >= count or None

        await wait_for(waiting, timeout, f"{count} waiting at {step}")

    async def wait_for_none_held(self, step: str, timeout: float = 10.0) -> None:
        """Wait until no client waits at a step that is held, since all that waited are gone."""

        async def gone() -> bool | None:
            return (await self.state()).waiting.get(step, 0) == 0 or None

        await wait_for(gone, timeout, f"no client waiting at {step}")

    # --- requests

    async def _get(self, kind: type[View], path: str) -> View:
        return from_json(kind, await self._call("GET", path))

    async def _list(self, kind: type[View], path: str) -> list[View]:
        return [from_json(kind, item) for item in await self._call("GET", path)]

    async def _affect(self, path: str, **body: object) -> int:
        return int((await self._call("POST", path, body))["affected"])

    async def _call(self, method: str, path: str, body: object = None, data: bytes | None = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_DEADLINE)
        async with self._session.request(method, self._base_url + path, json=body, data=data) as response:
            if "json" not in response.content_type:
                raise ControlError(response.status, "HTTPError", f"{method} {path}: {response.reason}")
            answer = await response.json()
            if response.status >= 400:
                raise ControlError(response.status, answer["error"], answer["message"])
            return answer


async def wait_for(probe: Callable[[], Awaitable[T | None]], timeout: float, what: str) -> T:
    """Poll until the probe returns an answer. Raise TimeoutError, which names the condition."""
    deadline = asyncio.get_running_loop().time() + timeout
    while (answer := await probe()) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        await asyncio.sleep(_POLL_SECONDS)
    return answer

"""The control interface: JSON over HTTP, one route for each thing a test may want. README.md shows it with curl."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from aiohttp import web

from tests.simulator import stanzas
from tests.simulator.accounts import Companion
from tests.simulator.binary_xml import Node
from tests.simulator.bookkeeping import DeviceRecord
from tests.simulator.faults import ConnectionRefusal, DropAtConfirmation, DropBeforeAck, HeldQuery, LoginFailure, Target
from tests.simulator.gates import Step
from tests.simulator.letters import Letter
from tests.simulator.linking import Flaw, LinkResult, StaleQr
from tests.simulator.linking_code import NoCodeRequested
from tests.simulator.listeners import Refusal
from tests.simulator.phone import Phone
from tests.simulator.simulator import Simulator, UnknownDevice, UnknownPhone
from tests.simulator.views import (
    Addresses,
    DeviceView,
    InboxView,
    LinkView,
    PhoneView,
    ReceiptView,
    SentView,
    StateView,
    to_json,
)

Choice = TypeVar("Choice", bound=StrEnum)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGEST = 64 * 1024 * 1024
"""Bytes of a request: a piece of history."""
_NOT_FOUND = (UnknownPhone, UnknownDevice, StaleQr, NoCodeRequested)


class BadInput(ValueError):
    """A request that says something impossible; the message says what."""


class Body:
    """The fields of a request, each checked as it is taken."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    @classmethod
    async def read(cls, request: web.Request) -> Body:
        """The request's JSON object; nothing at all is an empty one."""
        text = await request.text()
        try:
            fields = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadInput("the body is not a JSON object")
        return cls(fields)

    def text(self, name: str, default: str | None = None) -> str:
        """A text; required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise BadInput(f"{name}: a text is required")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text or nothing."""
        return None if self._fields.get(name) is None else self.text(name)

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number; required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadInput(f"{name}: a whole number of at least {least} is required")
        return value

    def optional_integer(self, name: str, *, least: int = 0) -> int | None:
        """A whole number or nothing."""
        return None if self._fields.get(name) is None else self.integer(name, least=least)

    def seconds(self, name: str) -> float:
        """A duration."""
        value = self._fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
            raise BadInput(f"{name}: seconds between 0 and 3600 are required")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._fields.get(name, default)
        if not isinstance(value, bool):
            raise BadInput(f"{name}: true or false is required")
        return value

    def choice(self, name: str, kind: type[Choice], default: Choice) -> Choice:
        """One of a few words."""
        return choose(name, kind, self.text(name, default.value))

    def stanza(self, name: str) -> Node:
        """A stanza (stanzas.py)."""
        return stanzas.from_json(self._fields.get(name))

    def target(self) -> Target:
        """Which devices are meant; all of them if it is not said."""
        return Target(self.text("target", ""))

    def times(self) -> int | None:
        """How often something is to happen: once if it is not said, null for until cleared."""
        return self.integer("times", 1, least=1) if self._fields.get("times", 1) is not None else None


def choose(name: str, kind: type[Choice], text: str) -> Choice:
    """The member of a choice that this text names."""
    try:
        return kind(text)
    except ValueError:
        raise BadInput(f"{name}: one of {', '.join(member.value for member in kind)} is required") from None


class ControlInterface:
    """Routes to a simulator."""

    def __init__(self, simulator: Simulator, addresses: Callable[[], Addresses]) -> None:
        self._simulator = simulator
        self._addresses = addresses

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[_errors_as_json], client_max_size=_LARGEST)
        application.add_routes(
            [
                web.get("/addresses", self._show_addresses),
                web.get("/state", self._show_state),
                web.get("/phones", self._list_phones),
                web.post("/phones", self._create_phone),
                web.get("/phones/{pn}", self._show_phone),
                web.patch("/phones/{pn}", self._change_phone),
                web.post("/phones/{pn}/scan", self._scan),
                web.post("/phones/{pn}/type-code", self._type_code),
                web.get("/phones/{pn}/inbox", self._show_inbox),
                web.get("/phones/{pn}/messages", self._show_sent),
                web.post("/phones/{pn}/messages", self._write),
                web.post("/phones/{pn}/repeat", self._repeat),
                web.post("/phones/{pn}/group-messages", self._write_to_group),
                web.post("/phones/{pn}/letters", self._post),
                web.post("/phones/{pn}/read", self._mark_read),
                web.post("/phones/{pn}/history", self._share_history),
                web.get("/devices", self._list_devices),
                web.get("/devices/{jid}", self._show_device),
                web.post("/devices/drop", self._drop),
                web.post("/devices/kick", self._kick),
                web.post("/devices/end-stream", self._end_stream),
                web.post("/devices/replace", self._replace),
                web.post("/devices/ban", self._ban),
                web.post("/devices/log-out", self._log_out),
                web.post("/devices/receipt", self._send_receipt),
                web.post("/devices/stanza", self._deliver),
                web.post("/faults/fail-logins", self._fail_logins),
                web.post("/faults/refuse-connections", self._refuse_connections),
                web.post("/faults/drop-before-ack", self._drop_before_ack),
                web.post("/faults/drop-at-confirmation", self._drop_at_confirmation),
                web.post("/faults/mute-keepalives", self._mute_keepalives),
                web.post("/faults/hold-queries", self._hold_queries),
                web.post("/faults/release-queries", self._release_queries),
                web.post("/faults/latency", self._set_latency),
                web.post("/faults/qr-refs", self._set_qr_refs),
                web.delete("/faults", self._clear_faults),
                web.post("/steps/{step}/hold", self._hold),
                web.post("/steps/{step}/release", self._release),
            ]
        )
        return application

    # --- the simulator as a whole

    async def _show_addresses(self, _request: web.Request) -> web.Response:
        return _json(self._addresses())

    async def _show_state(self, _request: web.Request) -> web.Response:
        ledger, faults = self._simulator.ledger, self._simulator.faults
        waiting = {step.value: count for step, count in faults.gates.waiting.items()}
        return _json(
            StateView(
                ledger.pairing,
                ledger.connections,
                ledger.rubbish,
                ledger.refused_connections,
                faults.held_query_count,
                waiting,
                ledger.unknown,
            )
        )

    # --- phones

    async def _list_phones(self, _request: web.Request) -> web.Response:
        phones = [self._simulator.phone(account.pn) for account in self._simulator.directory.accounts]
        return _json([_phone_view(phone) for phone in phones])

    async def _create_phone(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        pn = body.text("pn")
        if not (pn.isascii() and pn.isdigit() and 5 <= len(pn) <= 15):
            raise BadInput("pn: a phone number of 5 to 15 digits is required, without a plus sign")
        return _json(_phone_view(self._simulator.create_phone(pn, body.text("push_name", f"Phone {pn}"))))

    async def _show_phone(self, request: web.Request) -> web.Response:
        return _json(_phone_view(self._phone(request)))

    async def _change_phone(self, request: web.Request) -> web.Response:
        phone, body = self._phone(request), await Body.read(request)
        phone.sends_read_receipts = body.flag("sends_read_receipts", default=phone.sends_read_receipts)
        return _json(_phone_view(phone))

    async def _scan(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        flaw = body.choice("flaw", Flaw, Flaw.NONE)
        return _json(_link_view(await self._simulator.scan(_pn(request), body.text("qr"), flaw)))

    async def _type_code(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        flaw = body.choice("flaw", Flaw, Flaw.NONE)
        return _json(_link_view(await self._simulator.type_code(_pn(request), body.text("code"), flaw)))

    async def _show_inbox(self, request: web.Request) -> web.Response:
        return _json([InboxView(**vars(message)) for message in self._phone(request).inbox])

    async def _show_sent(self, request: web.Request) -> web.Response:
        return _json(
            [
                SentView(
                    message.id,
                    message.to,
                    message.text,
                    message.timestamp,
                    [ReceiptView(**vars(receipt)) for receipt in message.receipts],
                )
                for message in self._phone(request).sent
            ]
        )

    async def _write(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        message = self._simulator.write(_pn(request), body.text("to"), body.text("text"))
        return web.json_response({"id": message.id})

    async def _repeat(self, request: web.Request) -> web.Response:
        message_id = (await Body.read(request)).text("id")
        if not self._phone(request).repeat(message_id):
            raise BadInput(f"id: this phone has written no message {message_id}")
        return web.json_response({})

    async def _write_to_group(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        message_id = self._simulator.write_to_group(
            _pn(request), body.text("to"), body.text("group"), body.text("text")
        )
        return web.json_response({"id": message_id})

    async def _post(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        letter = Letter(
            content=base64.b64decode(body.text("content"), validate=True),
            type=body.text("type", "text"),
            media_type=body.text("media_type", ""),
            edit=body.text("edit", ""),
            decrypt_fail=body.text("decrypt_fail", ""),
            is_garbled=body.flag("is_garbled", default=False),
            unavailable=body.optional_text("unavailable"),
        )
        return web.json_response({"id": self._simulator.post(_pn(request), body.text("to"), letter).id})

    async def _mark_read(self, request: web.Request) -> web.Response:
        message_id = (await Body.read(request)).text("id")
        if not self._phone(request).mark_read(message_id):
            raise BadInput(f"id: this phone has no message {message_id}")
        return web.json_response({})

    async def _share_history(self, request: web.Request) -> web.Response:
        return _affected(self._simulator.share_history(_pn(request), await request.read()))

    # --- linked devices

    async def _list_devices(self, _request: web.Request) -> web.Response:
        return _json([self._device_view(record) for record in self._simulator.ledger.devices.values()])

    async def _show_device(self, request: web.Request) -> web.Response:
        jid = request.match_info["jid"]
        record = self._simulator.ledger.devices.get(jid)
        if record is None:
            raise UnknownDevice(f"no device has, or had, the address {jid}")
        return _json(self._device_view(record))

    async def _drop(self, request: web.Request) -> web.Response:
        return _affected(self._simulator.drop((await Body.read(request)).target()))

    async def _kick(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return _affected(self._simulator.kick(body.target(), body.integer("code", 503)))

    async def _end_stream(self, request: web.Request) -> web.Response:
        return _affected(self._simulator.end_streams((await Body.read(request)).target()))

    async def _replace(self, request: web.Request) -> web.Response:
        return _affected(self._simulator.replace((await Body.read(request)).target()))

    async def _ban(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return _affected(self._simulator.ban(body.target(), body.integer("code", 101), body.integer("expire", 3600)))

    async def _log_out(self, request: web.Request) -> web.Response:
        return _affected(self._simulator.log_out((await Body.read(request)).target()))

    async def _send_receipt(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return _affected(self._simulator.send_receipt(body.target(), body.text("sender"), body.text("type", "")))

    async def _deliver(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return _affected(self._simulator.deliver(body.target(), body.stanza("stanza")))

    # --- faults

    async def _fail_logins(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._simulator.faults.login_failures.append(
            LoginFailure(
                body.target(),
                body.times(),
                body.integer("reason", 503),
                body.optional_integer("code"),
                body.optional_integer("expire"),
            )
        )
        return web.json_response({})

    async def _refuse_connections(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        how = body.choice("how", Refusal, Refusal.ABORT)
        self._simulator.faults.refusals.append(ConnectionRefusal(Target(), body.times(), how))
        return web.json_response({})

    async def _drop_at_confirmation(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._simulator.faults.drops_at_confirmation.append(DropAtConfirmation(body.target(), body.times()))
        return web.json_response({})

    async def _drop_before_ack(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        drop = DropBeforeAck(body.target(), body.times(), body.flag("is_taken", default=True))
        self._simulator.faults.drops_before_ack.append(drop)
        return web.json_response({})

    async def _mute_keepalives(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._simulator.faults.mute_keepalives(body.target(), is_muted=body.flag("muted", default=True))
        return web.json_response({})

    async def _hold_queries(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        held = HeldQuery(body.target(), body.times(), body.text("namespace", ""))
        self._simulator.faults.held_queries.append(held)
        return web.json_response({})

    async def _release_queries(self, _request: web.Request) -> web.Response:
        return _affected(self._simulator.faults.release_queries())

    async def _set_latency(self, request: web.Request) -> web.Response:
        self._simulator.faults.latency = (await Body.read(request)).seconds("seconds")
        return web.json_response({})

    async def _set_qr_refs(self, request: web.Request) -> web.Response:
        self._simulator.linking.ref_count = (await Body.read(request)).integer("count", least=1)
        return web.json_response({})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._simulator.faults.clear()
        return web.json_response({})

    async def _hold(self, request: web.Request) -> web.Response:
        self._simulator.faults.gates.hold(choose("step", Step, request.match_info["step"]))
        return web.json_response({})

    async def _release(self, request: web.Request) -> web.Response:
        self._simulator.faults.gates.release(choose("step", Step, request.match_info["step"]))
        return web.json_response({})

    # --- views

    def _phone(self, request: web.Request) -> Phone:
        return self._simulator.phone(_pn(request))

    def _device_view(self, record: DeviceRecord) -> DeviceView:
        companion: Companion | None = None
        if record.removed is None:
            companion = self._simulator.companion(record.jid)
        shown = {**vars(record), "intervals": list(record.intervals)}
        return DeviceView(
            **shown,
            queue=len(companion.queue) if companion else 0,
            one_time_prekeys=len(companion.shelf.one_time) if companion else 0,
        )


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _NOT_FOUND as error:
        return web.json_response({"error": type(error).__name__, "message": error.args[0]}, status=404)
    except ValueError as error:
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=400)


def _pn(request: web.Request) -> str:
    return request.match_info["pn"]


def _json(view: object) -> web.Response:
    return web.json_response(to_json(view))


def _affected(count: int) -> web.Response:
    return web.json_response({"affected": count})


def _phone_view(phone: Phone) -> PhoneView:
    account = phone.account
    return PhoneView(
        account.pn,
        str(account.lid_jid()),
        account.push_name,
        [str(device.jid) for device in account.companions],
        phone.unreadable,
        phone.sends_read_receipts,
    )


def _link_view(result: LinkResult) -> LinkView:
    companion = result.companion
    return LinkView(
        result.outcome.value,
        result.detail,
        str(companion.jid) if companion else None,
        str(companion.lid) if companion else None,
    )

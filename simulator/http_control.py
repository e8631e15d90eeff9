"""Serves the control interface, JSON over HTTP. README.md shows its routes with curl."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from aiohttp import web

from simulator.accounts import Companion
from simulator.bookkeeping import DeviceRecord
from simulator.calls import UnknownCall
from simulator.http_faults import FaultRoutes
from simulator.http_newsletters import NewsletterRoutes
from simulator.http_people import PeopleRoutes
from simulator.http_phones import PhoneRoutes
from simulator.linking import StaleQr
from simulator.linking_code import NoCodeRequested
from simulator.request_body import Body
from simulator.responses import affected, shown
from simulator.simulator import Simulator, UnknownDevice, UnknownGroup, UnknownPhone
from simulator.views import Addresses, DeliveryView, DeviceView, StateView

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGEST = 64 * 1024 * 1024
"""Limit of a request in bytes, enough for a piece of history."""
_NOT_FOUND = (UnknownPhone, UnknownGroup, UnknownDevice, UnknownCall, StaleQr, NoCodeRequested)


class ControlInterface:
    """Routes for linked devices and the whole simulator. The other routes are in http_*.py."""

    def __init__(self, simulator: Simulator, addresses: Callable[[], Addresses]) -> None:
        self._simulator = simulator
        self._addresses = addresses

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[_errors_as_json], client_max_size=_LARGEST)
        application.add_routes(PhoneRoutes(self._simulator).routes())
        application.add_routes(PeopleRoutes(self._simulator).routes())
        application.add_routes(NewsletterRoutes(self._simulator).routes())
        application.add_routes(FaultRoutes(self._simulator).routes())
        application.add_routes(
            [
                web.get("/addresses", self._show_addresses),
                web.get("/state", self._show_state),
                web.get("/devices", self._list_devices),
                web.get("/devices/{jid}", self._show_device),
                web.get("/devices/{jid}/messages", self._show_deliveries),
                web.post("/devices/drop", self._drop),
                web.post("/devices/kick", self._kick),
                web.post("/devices/end-stream", self._end_stream),
                web.post("/devices/replace", self._replace),
                web.post("/devices/ban", self._ban),
                web.post("/devices/log-out", self._log_out),
                web.post("/devices/receipt", self._send_receipt),
                web.post("/devices/stanza", self._deliver),
            ]
        )
        return application

    # --- the simulator as a whole

    async def _show_addresses(self, _request: web.Request) -> web.Response:
        return shown(self._addresses())

    async def _show_state(self, _request: web.Request) -> web.Response:
        ledger, faults = self._simulator.ledger, self._simulator.faults
        waiting = {step.value: count for step, count in faults.gates.waiting.items()}
        return shown(
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

    # --- linked devices

    async def _list_devices(self, _request: web.Request) -> web.Response:
        return shown([self._device_view(record) for record in self._simulator.ledger.devices.values()])

    async def _show_device(self, request: web.Request) -> web.Response:
        return shown(self._device_view(self._record(request)))

    async def _show_deliveries(self, request: web.Request) -> web.Response:
        deliveries = self._record(request).deliveries
        return shown([DeliveryView(**dataclasses.asdict(delivery)) for delivery in deliveries])

    async def _drop(self, request: web.Request) -> web.Response:
        return affected(self._simulator.drop((await Body.read(request)).target()))

    async def _kick(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return affected(self._simulator.kick(body.target(), body.integer("code", 503)))

    async def _end_stream(self, request: web.Request) -> web.Response:
        return affected(self._simulator.end_streams((await Body.read(request)).target()))

    async def _replace(self, request: web.Request) -> web.Response:
        return affected(self._simulator.replace((await Body.read(request)).target()))

    async def _ban(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return affected(self._simulator.ban(body.target(), body.integer("code", 101), body.integer("expire", 3600)))

    async def _log_out(self, request: web.Request) -> web.Response:
        return affected(self._simulator.log_out((await Body.read(request)).target()))

    async def _send_receipt(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return affected(self._simulator.send_receipt(body.target(), body.text("sender"), body.text("type", "")))

    async def _deliver(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        return affected(self._simulator.deliver(body.target(), body.stanza("stanza")))

    # --- views

    def _record(self, request: web.Request) -> DeviceRecord:
        jid = request.match_info["jid"]
        record = self._simulator.ledger.devices.get(jid)
        if record is None:
            raise UnknownDevice(f"no device has, or had, the address {jid}")
        return record

    def _device_view(self, record: DeviceRecord) -> DeviceView:
        companion: Companion | None = None
        if record.removed is None:
            companion = self._simulator.companion(record.jid)
        known = {name: value for name, value in vars(record).items() if name != "deliveries"}
        return DeviceView(
            **{**known, "intervals": list(record.intervals)},
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

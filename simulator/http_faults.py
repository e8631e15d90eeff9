"""Routes by which a test sets faults and holds steps."""

from __future__ import annotations

from aiohttp import web

from simulator.faults import (
    ConnectionRefusal,
    DropAtConfirmation,
    DropBeforeAck,
    HeldQuery,
    LoginFailure,
    MessageRefusal,
    QueryFailure,
    Target,
    UnreadableMessage,
)
from simulator.gates import Step
from simulator.listeners import Refusal
from simulator.request_body import Body, choose
from simulator.responses import affected
from simulator.signal_state import Damage
from simulator.simulator import Simulator


class FaultRoutes:
    """Routes under /faults and /steps."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._faults = simulator.faults

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.post("/faults/fail-logins", self._fail_logins),
            web.post("/faults/refuse-connections", self._refuse_connections),
            web.post("/faults/drop-before-ack", self._drop_before_ack),
            web.post("/faults/drop-at-confirmation", self._drop_at_confirmation),
            web.post("/faults/unreadable", self._make_unreadable),
            web.post("/faults/refuse-messages", self._refuse_messages),
            web.post("/faults/fail-queries", self._fail_queries),
            web.post("/faults/mute-keepalives", self._mute_keepalives),
            web.post("/faults/hold-queries", self._hold_queries),
            web.post("/faults/release-queries", self._release_queries),
            web.post("/faults/latency", self._set_latency),
            web.post("/faults/qr-refs", self._set_qr_refs),
            web.delete("/faults", self._clear_faults),
            web.post("/steps/{step}/hold", self._hold),
            web.post("/steps/{step}/release", self._release),
        ]

    async def _make_unreadable(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        damage = body.choice("how", Damage, Damage.LOST)
        fault = UnreadableMessage(body.target(), body.times(), body.target("sender"), damage)
        self._faults.unreadable_messages.append(fault)
        return web.json_response({})

    async def _fail_logins(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._faults.login_failures.append(
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
        self._faults.refusals.append(ConnectionRefusal(Target(), body.times(), how))
        return web.json_response({})

    async def _drop_at_confirmation(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._faults.drops_at_confirmation.append(DropAtConfirmation(body.target(), body.times()))
        return web.json_response({})

    async def _drop_before_ack(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        drop = DropBeforeAck(body.target(), body.times(), body.flag("is_taken", default=True))
        self._faults.drops_before_ack.append(drop)
        return web.json_response({})

    async def _refuse_messages(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._faults.message_refusals.append(
            MessageRefusal(body.target(), body.times(), body.integer("code", 500, least=1))
        )
        return web.json_response({})

    async def _fail_queries(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._faults.query_failures.append(
            QueryFailure(
                body.target(),
                body.times(),
                body.text("namespace", ""),
                body.integer("code", 500, least=1),
                body.text("text", ""),
            )
        )
        return web.json_response({})

    async def _mute_keepalives(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        self._faults.mute_keepalives(body.target(), is_muted=body.flag("muted", default=True))
        return web.json_response({})

    async def _hold_queries(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        held = HeldQuery(body.target(), body.times(), body.text("namespace", ""))
        self._faults.held_queries.append(held)
        return web.json_response({})

    async def _release_queries(self, _request: web.Request) -> web.Response:
        return affected(self._faults.release_queries())

    async def _set_latency(self, request: web.Request) -> web.Response:
        self._faults.latency = (await Body.read(request)).seconds("seconds")
        return web.json_response({})

    async def _set_qr_refs(self, request: web.Request) -> web.Response:
        self._simulator.linking.ref_count = (await Body.read(request)).integer("count", least=1)
        return web.json_response({})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({})

    async def _hold(self, request: web.Request) -> web.Response:
        self._faults.gates.hold(choose("step", Step, request.match_info["step"]))
        return web.json_response({})

    async def _release(self, request: web.Request) -> web.Response:
        self._faults.gates.release(choose("step", Step, request.match_info["step"]))
        return web.json_response({})

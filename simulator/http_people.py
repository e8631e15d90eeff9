"""Routes by which a test lets a person act: show a profile, save contacts, and send queries from the phone."""

from __future__ import annotations

from aiohttp import web

from simulator import stanzas
from simulator.accounts import Account
from simulator.binary_xml import Node, node
from simulator.calls import Media
from simulator.network import name_of
from simulator.request_body import BadInput, Body
from simulator.responses import shown
from simulator.simulator import Simulator
from simulator.views import CallView, PresenceView, ProfileView, TypingView


class PeopleRoutes:
    """Routes under /phones/{pn} that concern the person more than the phone."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/phones/{pn}/profile", self._show_profile),
            web.patch("/phones/{pn}/profile", self._change_profile),
            web.post("/phones/{pn}/queries", self._ask),
            web.get("/phones/{pn}/presence", self._show_presence),
            web.post("/phones/{pn}/appear", self._appear),
            web.post("/phones/{pn}/disappear", self._disappear),
            web.post("/phones/{pn}/type", self._type),
            web.get("/phones/{pn}/calls", self._list_calls),
            web.post("/phones/{pn}/calls", self._call),
            web.post("/phones/{pn}/calls/{id}/hang-up", self._hang_up),
        ]

    async def _show_profile(self, request: web.Request) -> web.Response:
        return shown(self._profile_view(self._account(request)))

    async def _change_profile(self, request: web.Request) -> web.Response:
        account, body = self._account(request), await Body.read(request)
        profile = account.profile
        business_name = body.text("business_name", profile.business_name)
        contacts = body.texts("contacts", sorted(profile.contacts))
        about = body.optional_text("about")
        profile.business_name, profile.contacts = business_name, set(contacts)
        if about is not None:
            profile.set_about(about)
        return shown(self._profile_view(account))

    async def _ask(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        content = self._simulator.ask(request.match_info["pn"], _query(body))
        return web.json_response({"content": [stanzas.to_json(part) for part in content]})

    # --- presence and calls

    async def _show_presence(self, request: web.Request) -> web.Response:
        account, presences = self._account(request), self._simulator.presences
        return shown(
            PresenceView(
                is_available=presences.is_available(account),
                last_seen_at=presences.last_seen_at(account),
                subscribers=[str(device.jid) for device in presences.subscribers(account)],
                typings=[
                    TypingView(it.sender.pn, it.chat, it.state, it.media, it.at) for it in presences.typings(account)
                ],
            )
        )

    async def _appear(self, request: web.Request) -> web.Response:
        phone = self._simulator.phone(request.match_info["pn"])
        phone.require_on()
        self._simulator.presences.set_available(phone, is_available=True)
        return web.json_response({})

    async def _disappear(self, request: web.Request) -> web.Response:
        phone = self._simulator.phone(request.match_info["pn"])
        self._simulator.presences.set_available(phone, is_available=False)
        return web.json_response({})

    async def _type(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        state = body.text("state", "composing")
        if state not in ("composing", "paused"):
            raise BadInput("state: composing or paused is required")
        self._simulator.type(request.match_info["pn"], body.text("to"), state, body.text("media", ""))
        return web.json_response({})

    async def _list_calls(self, request: web.Request) -> web.Response:
        calls = self._simulator.calls.of(self._account(request))
        return shown([CallView(it.id, name_of(it.to), it.media, it.state, it.at) for it in calls])

    async def _call(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        media = body.choice("media", Media, Media.AUDIO)
        return web.json_response({"id": self._simulator.call(request.match_info["pn"], body.text("to"), media).id})

    async def _hang_up(self, request: web.Request) -> web.Response:
        self._simulator.calls.hang_up(self._account(request), request.match_info["id"])
        return web.json_response({})

    def _account(self, request: web.Request) -> Account:
        return self._simulator.phone(request.match_info["pn"]).account

    def _profile_view(self, account: Account) -> ProfileView:
        profile = account.profile
        by_lid = {other.lid: other.pn for other in self._simulator.directory.accounts}
        return ProfileView(
            about=profile.about,
            picture=profile.picture.id if profile.picture else "",
            business_name=profile.business_name,
            privacy=dict(profile.privacy),
            contacts=sorted(profile.contacts),
            blocked=[by_lid[lid] for lid in profile.blocked],
            disappearing=profile.disappearing,
        )


def _query(body: Body) -> Node:
    """Return the query (iq) that a request describes."""
    kind = body.text("type")
    if kind not in ("get", "set"):
        raise BadInput("type: get or set is required")
    attributes = stanzas.from_json({"tag": "iq", "attrs": body.texts_by_name("attrs")}).attrs
    attrs = {"to": "s.whatsapp.net", **attributes, "xmlns": body.text("namespace"), "type": kind}
    return node("iq", attrs, *([body.stanza("child")] if body.has("child") else []))

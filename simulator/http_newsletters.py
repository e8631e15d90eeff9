"""Routes by which a test sees newsletters, and lets their owners post."""

from __future__ import annotations

import base64
import secrets

from aiohttp import web

from simulator.binary_xml import node
from simulator.newsletters import Newsletter
from simulator.request_body import BadInput, Body
from simulator.responses import shown
from simulator.simulator import Simulator
from simulator.views import NewsletterView, PostView


class NewsletterRoutes:
    """Routes for newsletters. They are created by a query (mex) of a phone or a client."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/newsletters", self._list),
            web.post("/phones/{pn}/posts", self._post),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        return shown([_view(newsletter) for newsletter in self._simulator.newsletters])

    async def _post(self, request: web.Request) -> web.Response:
        body, phone = await Body.read(request), self._simulator.phone(request.match_info["pn"])
        phone.require_on()
        plaintext = node("plaintext", {"mediatype": body.optional_text("media_type")}, body.data("content"))
        about = {"to": body.text("to"), "id": secrets.token_hex(10).upper(), "type": body.text("type", "text")}
        answer = self._simulator.newsletters.take(phone, node("message", about, plaintext))
        if "error" in answer:
            raise BadInput(f"to: the server answers {answer['error']}")
        return web.json_response(answer)


def _view(newsletter: Newsletter) -> NewsletterView:
    posts = [
        PostView(
            it.server_id, it.id, it.type, base64.b64encode(it.content).decode(), len(it.viewers), dict(it.counts())
        )
        for it in newsletter.posts
    ]
    return NewsletterView(
        jid=str(newsletter.jid),
        name=newsletter.name,
        description=newsletter.description,
        owner=newsletter.owner.pn,
        invite=newsletter.invite,
        followers=[account.pn for account in newsletter.followers],
        muted=[account.pn for account, is_muted in newsletter.followers.items() if is_muted],
        posts=posts,
    )

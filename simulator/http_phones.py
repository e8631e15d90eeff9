"""Routes by which a test controls phones and groups."""

from __future__ import annotations

from aiohttp import web

from simulator.accounts import Addressing
from simulator.groups import Group
from simulator.letters import Letter
from simulator.linking import Flaw, LinkResult
from simulator.outbox import SentMessage
from simulator.phone import Phone
from simulator.request_body import BadInput, Body
from simulator.responses import affected, shown
from simulator.simulator import Simulator
from simulator.views import GroupView, InboxView, LinkView, PhoneView, ReceiptView, SentView, UnreadableView


class PhoneRoutes:
    """Routes under /phones and /groups."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/phones", self._list_phones),
            web.post("/phones", self._create_phone),
            web.get("/phones/{pn}", self._show_phone),
            web.patch("/phones/{pn}", self._change_phone),
            web.post("/phones/{pn}/off", self._switch_off),
            web.post("/phones/{pn}/on", self._switch_on),
            web.post("/phones/{pn}/scan", self._scan),
            web.post("/phones/{pn}/type-code", self._type_code),
            web.get("/phones/{pn}/inbox", self._show_inbox),
            web.get("/phones/{pn}/unreadable", self._show_unreadable),
            web.get("/phones/{pn}/messages", self._show_sent),
            web.post("/phones/{pn}/messages", self._write),
            web.post("/phones/{pn}/edit", self._edit),
            web.post("/phones/{pn}/repeat", self._repeat),
            web.post("/phones/{pn}/letters", self._post),
            web.post("/phones/{pn}/read", self._mark_read),
            web.post("/phones/{pn}/history", self._share_history),
            web.get("/groups", self._list_groups),
            web.post("/groups", self._create_group),
            web.get("/groups/{jid}", self._show_group),
        ]

    # --- phones

    async def _list_phones(self, _request: web.Request) -> web.Response:
        phones = [self._simulator.phone(account.pn) for account in self._simulator.directory.accounts]
        return shown([_phone_view(phone) for phone in phones])

    async def _create_phone(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        pn = body.text("pn")
        if not (pn.isascii() and pn.isdigit() and 5 <= len(pn) <= 15):
            raise BadInput("pn: a phone number of 5 to 15 digits is required, without a plus sign")
        return shown(_phone_view(self._simulator.create_phone(pn, body.text("push_name", f"Phone {pn}"))))

    async def _show_phone(self, request: web.Request) -> web.Response:
        return shown(_phone_view(self._phone(request)))

    async def _change_phone(self, request: web.Request) -> web.Response:
        phone, body = self._phone(request), await Body.read(request)
        phone.reader.sends_read_receipts = body.flag("sends_read_receipts", default=phone.reader.sends_read_receipts)
        account = phone.account
        account.addressing = body.choice("addressing", Addressing, account.addressing)
        account.seconds_ahead = body.integer("seconds_ahead", account.seconds_ahead)
        return shown(_phone_view(phone))

    async def _scan(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        flaw = body.choice("flaw", Flaw, Flaw.NONE)
        return shown(_link_view(await self._simulator.scan(_pn(request), body.text("qr"), flaw)))

    async def _type_code(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        flaw = body.choice("flaw", Flaw, Flaw.NONE)
        return shown(_link_view(await self._simulator.type_code(_pn(request), body.text("code"), flaw)))

    async def _switch_off(self, request: web.Request) -> web.Response:
        self._phone(request).switch_off()
        return shown(_phone_view(self._phone(request)))

    async def _switch_on(self, request: web.Request) -> web.Response:
        self._phone(request).switch_on()
        return shown(_phone_view(self._phone(request)))

    async def _show_inbox(self, request: web.Request) -> web.Response:
        return shown([InboxView(**vars(message)) for message in self._phone(request).inbox.messages])

    async def _show_unreadable(self, request: web.Request) -> web.Response:
        return shown([UnreadableView(**vars(message)) for message in self._phone(request).inbox.unreadable])

    async def _show_sent(self, request: web.Request) -> web.Response:
        return shown([_sent_view(message) for message in self._phone(request).outbox.messages])

    async def _write(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        message = self._simulator.write(
            _pn(request),
            body.text("to"),
            body.text("text"),
            begin_anew=body.flag("begin_anew", default=False),
            is_garbled=body.flag("is_garbled", default=False),
        )
        return web.json_response({"id": message.id})

    async def _edit(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        message_id = body.text("id")
        edit = self._phone(request).edit(message_id, body.text("text"))
        if edit is None:
            raise BadInput(f"id: this phone has written no message {message_id}")
        return web.json_response({"id": edit.id})

    async def _repeat(self, request: web.Request) -> web.Response:
        message_id = (await Body.read(request)).text("id")
        if not self._phone(request).repeat(message_id):
            raise BadInput(f"id: this phone has written no message {message_id}")
        return web.json_response({})

    async def _post(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        letter = Letter(
            content=body.data("content"),
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
        return affected(self._simulator.share_history(_pn(request), await request.read()))

    # --- groups

    async def _list_groups(self, _request: web.Request) -> web.Response:
        return shown([_group_view(group) for group in self._simulator.groups])

    async def _create_group(self, request: web.Request) -> web.Response:
        body = await Body.read(request)
        group = self._simulator.create_group(body.text("creator"), body.text("subject"), body.texts("members"))
        return shown(_group_view(group))

    async def _show_group(self, request: web.Request) -> web.Response:
        return shown(_group_view(self._simulator.group(request.match_info["jid"])))

    def _phone(self, request: web.Request) -> Phone:
        return self._simulator.phone(_pn(request))


def _pn(request: web.Request) -> str:
    return request.match_info["pn"]


def _phone_view(phone: Phone) -> PhoneView:
    account = phone.account
    return PhoneView(
        account.pn,
        str(account.lid_jid()),
        account.push_name,
        [str(device.jid) for device in account.companions],
        phone.inbox.failures,
        phone.reader.sends_read_receipts,
        phone.is_on,
        phone.waiting,
    )


def _sent_view(message: SentMessage) -> SentView:
    receipts = [ReceiptView(**vars(receipt)) for receipt in message.receipts]
    return SentView(message.id, message.to, message.text, message.timestamp, receipts)


def _group_view(group: Group) -> GroupView:
    return GroupView(
        jid=str(group.jid),
        subject=group.subject,
        creator=group.creator.pn,
        members=[member.pn for member in group.members],
        created_at=group.created_at,
        admins=[member.pn for member in group.admins],
        description=group.description.text if group.description else "",
        is_locked=group.is_locked,
        is_announcement=group.is_announcement,
        expiration=group.expiration,
        only_admins_add=group.only_admins_add,
        needs_approval=group.needs_approval,
        invite_code=group.invite_code,
        requests=[account.pn for account in group.requests],
        picture=group.picture.id if group.picture else "",
        is_community=group.is_community,
        parent=str(group.parent.jid) if group.parent else "",
    )


def _link_view(result: LinkResult) -> LinkView:
    companion = result.companion
    return LinkView(
        result.outcome.value,
        result.detail,
        str(companion.jid) if companion else None,
        str(companion.lid) if companion else None,
    )

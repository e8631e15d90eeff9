"""Lets a person of the simulator act, from Python: the person's phone sends the queries that a client would send."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from simulator import stanzas
from simulator.binary_xml import Node, node
from simulator.jid import GROUP_SERVER, Jid
from simulator.member_control import MemberControl
from simulator.views import CallView, PresenceView, ProfileView, from_json

#: Sends a request to the control interface: method, path, and the body as JSON. Returns the answer.
Call = Callable[[str, str, object], Awaitable[Any]]


class PersonControl:
    """One person. What the server refuses raises ControlError of the kind QueryFailed with its code and text."""

    def __init__(self, pn: str, call: Call) -> None:
        self.pn = pn
        self._call = call

    async def profile(self) -> ProfileView:
        """Return the profile and the settings."""
        return from_json(ProfileView, await self._call("GET", f"/phones/{self.pn}/profile", None))

    async def set_about(self, text: str) -> None:
        """Set the about text."""
        await self._change_profile(about=text)

    async def set_business_name(self, name: str) -> None:
        """Make the person a business with a verified name, or a private person again with an empty one."""
        await self._change_profile(business_name=name)

    async def save_contacts(self, *numbers: str) -> None:
        """Replace the person's address book by these phone numbers."""
        await self._change_profile(contacts=list(numbers))

    async def set_picture(self, jpeg: bytes) -> None:
        """Set the picture; empty bytes remove it."""
        picture = node("picture", {"type": "image"}, jpeg)
        await self.ask("w:profile:picture", "set", picture)

    async def set_privacy(self, setting: str, value: str) -> None:
        """Set who sees something (`profiles.PRIVACY`), for example the picture: profile, none."""
        category = node("category", {"name": setting, "value": value})
        await self.ask("privacy", "set", node("privacy", {}, category))

    async def block(self, other: str) -> None:
        """Block a phone number."""
        await self._block(other, "block")

    async def unblock(self, other: str) -> None:
        """Unblock a phone number."""
        await self._block(other, "unblock")

    def member_of(self, group: str) -> MemberControl:
        """Return the means to let the person act in a group, given by its address."""
        return MemberControl(group, self.ask)

    async def join(self, code: str) -> bool:
        """Follow an invite link. Return False if an admin has to approve first."""
        invite = node("invite", {"code": code})
        (answer,) = await self.ask("w:g2", "set", invite, to=GROUP_SERVER)
        return answer.tag == "group"

    async def appear(self) -> None:
        """Have the person open WhatsApp on the phone: the person is available, and sees who types."""
        await self._call("POST", f"/phones/{self.pn}/appear", {})

    async def disappear(self) -> None:
        """Have the person close WhatsApp on the phone."""
        await self._call("POST", f"/phones/{self.pn}/disappear", {})

    async def type(self, to: str, state: str = "composing", media: str = "") -> None:
        """Type to a phone number or a group, perhaps a voice message (media: audio), or stop (state: paused)."""
        await self._call("POST", f"/phones/{self.pn}/type", {"to": to, "state": state, "media": media})

    async def presence(self) -> PresenceView:
        """Return whether the person is available, and who typed to the person."""
        return from_json(PresenceView, await self._call("GET", f"/phones/{self.pn}/presence", None))

    async def call(self, to: str, media: str = "audio") -> str:
        """Call a phone number or a group (media: audio or video). Return the id of the call."""
        return str((await self._call("POST", f"/phones/{self.pn}/calls", {"to": to, "media": media}))["id"])

    async def hang_up(self, call_id: str) -> None:
        """End a call that rings."""
        await self._call("POST", f"/phones/{self.pn}/calls/{call_id}/hang-up", {})

    async def calls(self) -> list[CallView]:
        """Return the calls that the person made."""
        return [from_json(CallView, it) for it in await self._call("GET", f"/phones/{self.pn}/calls", None)]

    async def create_newsletter(self, name: str, description: str = "") -> str:
        """Create a newsletter. Return its address."""
        created = await self.ask_mex("6234210096708695", newsletter_input={"name": name, "description": description})
        return str(created["xwa2_newsletter_create"]["id"])

    async def post(self, newsletter: str, content: bytes, kind: str = "text", media_type: str | None = None) -> int:
        """Post a message, a serialised waE2E.Message, in an own newsletter. Return its number."""
        encoded = base64.b64encode(content).decode()
        body = {"to": newsletter, "content": encoded, "type": kind, "media_type": media_type}
        return int((await self._call("POST", f"/phones/{self.pn}/posts", body))["server_id"])

    async def ask_mex(self, query_id: str, **variables: object) -> dict[str, Any]:
        """Send a mex query from the phone. Return the data. Raise LookupError with its errors."""
        variables_as_json = json.dumps({"variables": variables}).encode()
        (answer,) = await self.ask("w:mex", "get", node("query", {"query_id": query_id}, variables_as_json))
        found = json.loads(answer.data)
        if "errors" in found:
            raise LookupError(found["errors"])
        data: dict[str, Any] = found["data"]
        return data

    async def ask(self, namespace: str, kind: str, child: Node | None = None, **attrs: str) -> Sequence[Node]:
        """Send a query (kind: get or set) from the phone, as a client would. Return the content of the result."""
        body = {"namespace": namespace, "type": kind, "attrs": attrs}
        if child is not None:
            body["child"] = stanzas.to_json(child)
        answer = await self._call("POST", f"/phones/{self.pn}/queries", body)
        return [stanzas.from_json(part) for part in answer["content"]]

    async def _block(self, other: str, action: str) -> None:
        await self.ask("blocklist", "set", node("item", {"action": action, "jid": Jid(other)}))

    async def _change_profile(self, **changes: object) -> None:
        await self._call("PATCH", f"/phones/{self.pn}/profile", changes)

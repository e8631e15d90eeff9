"""Answers queries about pictures, and about the links that lead to a person."""

from __future__ import annotations

import secrets

from simulator.accounts import Account, Device, Directory
from simulator.announcing import announce, announce_to_acquaintances
from simulator.answers import Handlers, bad_request, forbidden, not_acceptable, not_authorized, not_found
from simulator.binary_xml import Node, node
from simulator.groups import Group, Groups
from simulator.jid import GROUP_SERVER, Jid
from simulator.profiles import NotAPicture, Picture
from simulator.stanzas import notification

_HOST = "https://pps.whatsapp.net"


class ProfileQueries:
    """Handlers of the namespaces w:profile:picture and w:qr."""

    def __init__(self, directory: Directory, groups: Groups) -> None:
        self._directory = directory
        self._groups = groups

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {
            ("w:profile:picture", "get", "picture"): self._show_picture,
            ("w:profile:picture", "set", "picture"): self._set_picture,
            ("w:profile:picture", "set", ""): self._set_picture,
            ("w:qr", "set", "qr"): self._own_link,
            ("w:qr", "get", "qr"): self._follow_link,
        }

    # --- pictures

    def _show_picture(self, asking: Device, query: Node) -> list[Node]:
        asked = query.find("picture") or Node("picture")
        kind = asked.text("type")
        if asked.text("query") != "url" or kind not in ("image", "preview"):
            raise bad_request()
        picture = self._picture_of(asking.account, query.jid("target"))
        if picture is None:
            raise not_found()
        if asked.text("id") == picture.id:
            return []  # the client has it
        path = picture.direct_path + ("&stp=dst-jpg_s96x96" if kind == "preview" else "")
        about = {"id": picture.id, "type": kind, "url": _HOST + path, "direct_path": path, "hash": picture.hash}
        return [node("picture", about)]

    def _picture_of(self, viewer: Account, target: Jid | None) -> Picture | None:
        if target is not None and target.server == GROUP_SERVER:
            group = self._group(target)
            if viewer not in group.members:
                raise not_authorized()
            return group.picture
        account = self._directory.account(target)
        if account is None:
            raise not_found()
        if not account.shows("profile", viewer):
            raise not_authorized()
        return account.profile.picture

    def _set_picture(self, asking: Device, query: Node) -> list[Node]:
        """Set or, with empty content, remove the picture of the account or of a group."""
        target, given = query.jid("target"), query.find("picture")
        picture = _picture(given)
        if target is not None and target.server == GROUP_SERVER:
            self._set_group_picture(asking, self._group(target), picture)
        elif target is None or self._directory.account(target) is asking.account:
            account = asking.account
            account.profile.picture = picture
            change = _change(account.lid_jid(), account, picture)
            announce_to_acquaintances(self._directory, asking, change, "profile")
        else:
            raise forbidden()
        return [node("picture", {"id": picture.id})] if picture else []

    def _set_group_picture(self, asking: Device, group: Group, picture: Picture | None) -> None:
        if not group.may_describe(asking.account):
            raise forbidden()
        group.picture = picture
        announce(_change(group.jid, asking.account, picture), group.members, besides=asking)

    def _group(self, jid: Jid) -> Group:
        group = self._groups.find(jid)
        if group is None:
            raise not_found()
        return group

    # --- links

    def _own_link(self, asking: Device, query: Node) -> list[Node]:
        asked, profile = query.find("qr") or Node("qr"), asking.account.profile
        if asked.text("type") != "contact" or asked.text("action") not in ("get", "revoke"):
            raise bad_request()
        if asked.text("action") == "revoke":
            profile.contact_code = secrets.token_hex(8).upper()
        return [node("qr", {"code": profile.contact_code})]

    def _follow_link(self, _asking: Device, query: Node) -> list[Node]:
        code = (query.find("qr") or Node("qr")).text("code")
        account = next((it for it in self._directory.accounts if it.profile.contact_code == code), None)
        if account is None:
            raise not_found()
        return [node("qr", {"jid": account.pn_jid(), "notify": account.push_name, "type": "contact"})]


def _picture(given: Node | None) -> Picture | None:
    if given is None or not given.data:
        return None
    if given.text("type") != "image":
        raise bad_request()
    try:
        return Picture.of(given.data)
    except NotAPicture:
        raise not_acceptable() from None


def _change(of: Jid, author: Account, picture: Picture | None) -> Node:
    about = {"jid": of, "author": author.lid_jid()}
    change = node("set", {**about, "id": picture.id}) if picture else node("delete", about)
    return notification("picture", of, change)

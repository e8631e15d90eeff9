"""Answers queries about newsletters: their data by mex, and their posts."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping

from simulator.accounts import Account, Companion, Device
from simulator.announcing import announce
from simulator.answers import Handlers, bad_request, not_found
from simulator.binary_xml import Node, node
from simulator.jid import SERVER, Jid
from simulator.mex import MexFailed, MexHandler, Variables, update
from simulator.newsletters import LIVE_SECONDS, Newsletter, Newsletters
from simulator.profiles import NotAPicture, Picture
from simulator.stanzas import notification

_MOST_POSTS = 100
Json = dict[str, object]


class NewsletterQueries:
    """Handlers of the namespace newsletter, and of the mex queries about newsletters."""

    def __init__(self, newsletters: Newsletters) -> None:
        self._newsletters = newsletters

    def handlers(self) -> Handlers:
        """Return the handlers by namespace."""
        return {
            ("newsletter", "get", "messages"): self._list_posts,
            ("newsletter", "get", "message_updates"): self._list_updates,
            ("newsletter", "set", "live_updates"): self._go_live,
        }

    def mex_handlers(self) -> Mapping[str, MexHandler]:
        """Return the handlers by the number of the query."""
        return {
            "6563316087068696": self._show,
            "6388546374527196": self._list_followed,
            "6234210096708695": self._create,
            "9926858900719341": self._follow,
            "6392786840836363": self._unfollow,
            "6274038279359549": self._mute,
            "6068417879924485": self._unmute,
        }

    # --- newsletters

    def _show(self, asking: Device, variables: Variables) -> Json:
        match variables.get("input"):
            case {"type": "JID", "key": str(key)}:
                newsletter = self._find(key)
            case {"type": "INVITE", "key": str(key)}:
                newsletter = next((it for it in self._newsletters if it.invite == key), None)
            case _:
                raise MexFailed(400, "bad request")
        if newsletter is None:
            raise MexFailed(404, "not found")
        viewer = asking.account if variables.get("fetch_viewer_metadata") else None
        return {"xwa2_newsletter": _metadata(newsletter, viewer)}

    def _list_followed(self, asking: Device, _variables: Variables) -> Json:
        followed = [_metadata(it, asking.account) for it in self._newsletters if asking.account in it.followers]
        return {"xwa2_newsletter_subscribed": followed}

    def _create(self, asking: Device, variables: Variables) -> Json:
        match variables.get("newsletter_input"):
            case {"name": str(name), **others} if name:
                description, encoded = str(others.get("description") or ""), str(others.get("picture") or "")
            case _:
                raise MexFailed(400, "bad request")
        try:
            picture = Picture.of(base64.b64decode(encoded)) if encoded else None
        except NotAPicture:
            raise MexFailed(406, "not acceptable") from None
        newsletter = self._newsletters.create(asking.account, name, description, picture)
        return {"xwa2_newsletter_create": _metadata(newsletter, asking.account)}

    def _follow(self, asking: Device, variables: Variables) -> Json:
        newsletter = self._named(variables)
        newsletter.followers.setdefault(asking.account, False)
        _announce(asking, "on_join", _metadata(newsletter, asking.account))
        return {"xwa2_newsletter_join_v2": {"id": str(newsletter.jid)}}

    def _unfollow(self, asking: Device, variables: Variables) -> Json:
        newsletter = self._named(variables)
        if newsletter.owner is asking.account:
            raise MexFailed(403, "forbidden")
        newsletter.followers.pop(asking.account, None)
        _announce(asking, "on_leave", {"id": str(newsletter.jid), "role": "GUEST"})
        return {"xwa2_newsletter_leave_v2": {"id": str(newsletter.jid)}}

    def _mute(self, asking: Device, variables: Variables) -> Json:
        return self._set_muted(asking, variables, is_muted=True)

    def _unmute(self, asking: Device, variables: Variables) -> Json:
        return self._set_muted(asking, variables, is_muted=False)

    def _set_muted(self, asking: Device, variables: Variables, *, is_muted: bool) -> Json:
        newsletter = self._named(variables)
        if asking.account not in newsletter.followers:
            raise MexFailed(403, "forbidden")
        newsletter.followers[asking.account] = is_muted
        _announce(asking, "on_mute_change", {"id": str(newsletter.jid), "mute": "ON" if is_muted else "OFF"})
        return {"xwa2_newsletter_mute": {"id": str(newsletter.jid)}}

    def _named(self, variables: Variables) -> Newsletter:
        newsletter = self._find(str(variables.get("newsletter_id")))
        if newsletter is None:
            raise MexFailed(404, "not found")
        return newsletter

    def _find(self, address: str) -> Newsletter | None:
        return self._newsletters.find(Jid.parse(address))

    # --- posts

    def _list_posts(self, _asking: Device, query: Node) -> list[Node]:
        asked = query.children[0]
        newsletter = self._newsletters.find(asked.jid("jid"))
        if newsletter is None:
            raise not_found()
        before, count = _number(asked, "before"), _number(asked, "count") or _MOST_POSTS
        posts = [post for post in newsletter.posts if not before or post.server_id < before]
        return [newsletter.messages(posts[-count:])]

    def _list_updates(self, _asking: Device, query: Node) -> list[Node]:
        asked, newsletter = query.children[0], self._addressed(query)
        after, since = _number(asked, "after"), _number(asked, "since")
        posts = [post for post in newsletter.posts if post.server_id > after and post.at >= since]
        return [node("message_updates", {}, newsletter.messages(posts[: _number(asked, "count") or _MOST_POSTS]))]

    def _go_live(self, asking: Device, query: Node) -> list[Node]:
        newsletter = self._addressed(query)
        if isinstance(asking, Companion):
            newsletter.live[asking] = time.time() + LIVE_SECONDS
        return [node("live_updates", {"duration": LIVE_SECONDS})]

    def _addressed(self, query: Node) -> Newsletter:
        newsletter = self._newsletters.find(query.jid("to"))
        if newsletter is None:
            raise not_found()
        return newsletter


def _metadata(newsletter: Newsletter, viewer: Account | None) -> Json:
    """Return what a client sees of a newsletter. Numbers are texts."""
    created, version = str(newsletter.created_at), str(newsletter.created_at * 10**6)
    picture = newsletter.picture
    thread: Json = {
        "creation_time": created,
        "invite": newsletter.invite,
        "name": {"text": newsletter.name, "id": version, "update_time": version},
        "description": {"text": newsletter.description, "id": version, "update_time": version},
        "subscribers_count": str(len(newsletter.followers)),
        "verification": "UNVERIFIED",
        "picture": _picture(picture, "IMAGE"),
        "preview": _picture(picture, "PREVIEW"),
        "settings": {"reaction_codes": {"value": "ALL"}},
    }
    seen: Json = {"id": str(newsletter.jid), "state": {"type": "ACTIVE"}, "thread_metadata": thread}
    return {**seen, "viewer_metadata": _role(newsletter, viewer) if viewer is not None else None}


def _role(newsletter: Newsletter, viewer: Account) -> Json:
    is_owner, follows = viewer is newsletter.owner, viewer in newsletter.followers
    role = "OWNER" if is_owner else "SUBSCRIBER" if follows else "GUEST"
    return {"mute": "ON" if newsletter.followers.get(viewer, False) else "OFF", "role": role}


def _picture(picture: Picture | None, kind: str) -> Json:
    path = picture.direct_path if picture else ""
    return {"url": "", "id": picture.id if picture else "", "direct_path": path, "type": kind}


def _announce(asking: Device, event: str, data: Json) -> None:
    """Notify the other own devices."""
    change = update(f"xwa2_notify_newsletter_{event}", data)
    announce(notification("mex", SERVER, change), [asking.account], besides=asking)


def _number(asked: Node, name: str) -> int:
    text = asked.text(name) or "0"
    if not text.isdigit():
        raise bad_request()
    return int(text)

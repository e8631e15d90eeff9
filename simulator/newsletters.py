"""Holds the newsletters (channels): who follows them, what their owners post, and what followers react."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.accounts import Account, Companion, Device
from simulator.announcing import announce
from simulator.binary_xml import Attrs, Node, node
from simulator.jid import Jid
from simulator.profiles import Picture
from simulator.stanzas import notification

NEWSLETTER_SERVER = "newsletter"
#: Seconds for which a device hears of new reactions and views after it has asked for them.
LIVE_SECONDS = 300
_FORBIDDEN, _NOT_FOUND = 403, 404


@dataclass(eq=False)
class Post:
    """A message of a newsletter, which is not encrypted."""

    server_id: int
    id: str
    type: str
    content: bytes
    media_type: str = ""
    at: int = field(default_factory=lambda: int(time.time()))
    viewers: set[Account] = field(default_factory=set)
    reactions: dict[Account, str] = field(default_factory=dict)

    def plaintext(self) -> Node:
        """Return the content for a stanza."""
        return node("plaintext", {"mediatype": self.media_type or None}, self.content)

    def stanza(self) -> Node:
        """Return the message of lists and live updates, with its numbers."""
        counts = (node("reaction", {"code": code, "count": count}) for code, count in self.counts().items())
        about: Attrs = {"server_id": self.server_id, "id": self.id, "t": self.at, "type": self.type}
        views = node("views_count", {"count": len(self.viewers)})
        return node("message", about, self.plaintext(), views, node("reactions", {}, *counts))

    def counts(self) -> Counter[str]:
        """Return the number of reactions by emoji."""
        return Counter(self.reactions.values())


@dataclass(eq=False)
class Newsletter:
    """A channel of one owner."""

    jid: Jid
    owner: Account
    name: str
    description: str
    picture: Picture | None = None
    invite: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created_at: int = field(default_factory=lambda: int(time.time()))
    #: the owner and the followers, and whether each has muted it
    followers: dict[Account, bool] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)
    #: until when devices hear of reactions and views, in Unix seconds
    live: dict[Companion, float] = field(default_factory=dict)

    def find(self, server_id: str) -> Post | None:
        """Return the post with this number."""
        return next((post for post in self.posts if str(post.server_id) == server_id), None)

    def messages(self, posts: list[Post]) -> Node:
        """Return the <messages> of answers and live updates."""
        return node("messages", {"jid": self.jid, "t": int(time.time())}, *(post.stanza() for post in posts))

    def show_live(self, post: Post) -> None:
        """Send the numbers of a post to the devices that hear of them."""
        change = notification("newsletter", self.jid, node("live_updates", {}, self.messages([post])))
        for device, until in list(self.live.items()):
            if until > time.time():
                device.receive(change)


class Newsletters:
    """All newsletters, in order of creation."""

    def __init__(self) -> None:
        self._by_jid: dict[Jid, Newsletter] = {}

    def __iter__(self) -> Iterator[Newsletter]:
        return iter(list(self._by_jid.values()))

    def create(self, owner: Account, name: str, description: str, picture: Picture | None = None) -> Newsletter:
        """Create a newsletter, which its owner follows."""
        jid = Jid(f"120363{secrets.randbelow(10**12):012}", NEWSLETTER_SERVER)
        newsletter = self._by_jid[jid] = Newsletter(jid, owner, name, description, picture)
        newsletter.followers[owner] = False
        return newsletter

    def find(self, jid: Jid | None) -> Newsletter | None:
        """Return the newsletter at an address; None if there is none."""
        return self._by_jid.get(jid) if jid is not None else None

    # --- what clients and phones send

    def take(self, sender: Device, message: Node) -> Attrs:
        """Take a post or a reaction. Return the extra attributes of the acknowledgement."""
        newsletter = self.find(message.jid("to"))
        if newsletter is None:
            return {"error": _NOT_FOUND}
        if message.text("type") == "reaction":
            return self._react(newsletter, sender.account, message)
        plaintext = message.find("plaintext")
        if sender.account is not newsletter.owner or plaintext is None:
            return {"error": _FORBIDDEN}
        known = next((post for post in newsletter.posts if post.id == message.text("id")), None)
        if message.text("edit"):
            return _edit(known, plaintext)
        if known is not None:
            return {"server_id": known.server_id}  # a repetition
        number = 100 + len(newsletter.posts)
        kind, media_type = message.text("type") or "text", plaintext.text("mediatype")
        post = Post(number, message.text("id"), kind, plaintext.data, media_type)
        newsletter.posts.append(post)
        about: Attrs = {"from": newsletter.jid, "id": post.id, "server_id": number, "t": post.at, "type": kind}
        announce(node("message", about, post.plaintext()), newsletter.followers, besides=sender)
        return {"server_id": number}

    def view(self, viewer: Account, receipt: Node) -> None:
        """Count the view of posts."""
        newsletter, listed = self.find(receipt.jid("to")), receipt.find("list")
        for item in listed.children if listed else []:
            post = newsletter.find(item.text("server_id")) if newsletter else None
            if newsletter is not None and post is not None:
                post.viewers.add(viewer)
                newsletter.show_live(post)

    def _react(self, newsletter: Newsletter, account: Account, message: Node) -> Attrs:
        post, reaction = newsletter.find(message.text("server_id")), message.find("reaction")
        if account not in newsletter.followers:
            return {"error": _FORBIDDEN}
        if post is None or reaction is None:
            return {"error": _NOT_FOUND}
        if reaction.text("code"):
            post.reactions[account] = reaction.text("code")
        else:
            post.reactions.pop(account, None)
        newsletter.show_live(post)
        return {}


def _edit(post: Post | None, plaintext: Node) -> Attrs:
    """Replace the content of a post."""
    if post is None:
        return {"error": _NOT_FOUND}
    post.content = plaintext.data
    return {"server_id": post.server_id}

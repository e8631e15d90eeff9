"""Live updates of newsletters, which neonize does not show."""

from __future__ import annotations

from typing import cast

from simulator.accounts import Account, Companion
from simulator.binary_xml import Attrs, Node, node
from simulator.newsletters import Newsletter, Newsletters


class HearingDevice:
    """A linked device that keeps what it receives."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.heard: list[Node] = []

    def receive(self, stanza: Node) -> None:
        """Keep a stanza."""
        self.heard.append(stanza)


def with_a_post(newsletters: Newsletters, owner: HearingDevice) -> Newsletter:
    """Return a newsletter with the post 100."""
    newsletter = newsletters.create(owner.account, "News", "")
    message = node("message", {"to": newsletter.jid, "id": "A", "type": "text"}, node("plaintext", {}, b"first"))
    assert newsletters.take(cast(Companion, owner), message) == {"server_id": 100}
    return newsletter


def react(newsletters: Newsletters, newsletter: Newsletter, device: HearingDevice) -> None:
    """React to the post."""
    about: Attrs = {"to": newsletter.jid, "id": "B", "type": "reaction", "server_id": 100}
    newsletters.take(cast(Companion, device), node("message", about, node("reaction", {"code": "👍"})))


def test_reactions_are_shown_live_until_the_time_is_over() -> None:
    newsletters, owner = Newsletters(), HearingDevice(Account("49151", "1", "Bob"))
    newsletter = with_a_post(newsletters, owner)
    react(newsletters, newsletter, owner)
    assert owner.heard == [], "it has not asked"
    newsletter.live[cast(Companion, owner)] = float("inf")
    react(newsletters, newsletter, owner)
    (change,) = owner.heard
    (messages,) = change.children[0].children
    (shown,) = messages.children
    assert (change.text("type"), shown.text("server_id")) == ("newsletter", "100")
    reactions = shown.find("reactions")
    assert reactions is not None and reactions.children == [node("reaction", {"code": "👍", "count": 1})]
    newsletter.live[cast(Companion, owner)] = 0.0
    react(newsletters, newsletter, owner)
    assert owner.heard == [change]


def test_a_repeated_post_is_one_and_an_edit_changes_it() -> None:
    newsletters, owner = Newsletters(), HearingDevice(Account("49151", "1", "Bob"))
    newsletter = with_a_post(newsletters, owner)
    about: Attrs = {"to": newsletter.jid, "id": "A", "type": "text"}
    for content, edit in ((b"again", None), (b"edited", "3")):
        message = node("message", {**about, "edit": edit}, node("plaintext", {}, content))
        assert newsletters.take(cast(Companion, owner), message) == {"server_id": 100}
        assert [post.content for post in newsletter.posts] == [b"edited" if edit else b"first"]

"""Answers to queries (iq): their form, their failures, and the types of the functions that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simulator.accounts import Companion, Device
from simulator.binary_xml import Attrs, Node, node
from simulator.jid import SERVER

#: Namespace, type (get or set) and the tag of the first child.
Key = tuple[str, str, str]
#: Takes the device that asks and its query, and returns the content of the result. Raises QueryFailed.
Handler = Callable[[Device, Node], list[Node]]
Handlers = Mapping[Key, Handler]
#: The same for queries that only linked devices send.
CompanionHandler = Callable[[Companion, Node], list[Node]]
CompanionHandlers = Mapping[Key, CompanionHandler]


class QueryFailed(ValueError):
    """The server refuses the query. Clients compare the code and the text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}".rstrip())
        self.code = code
        self.answer = node("error", {"code": code, "text": text})


def bad_request() -> QueryFailed:
    """Return the failure of a query that is malformed or not allowed in the state of its object."""
    return QueryFailed(400, "bad-request")


def not_authorized() -> QueryFailed:
    """Return the failure of a query for what its owner hides."""
    return QueryFailed(401, "not-authorized")


def forbidden() -> QueryFailed:
    """Return the failure of a query that its sender has no right to."""
    return QueryFailed(403, "forbidden")


def not_found() -> QueryFailed:
    """Return the failure of a query for an object that does not exist."""
    return QueryFailed(404, "item-not-found")


def not_acceptable() -> QueryFailed:
    """Return the failure of a query whose value the server does not take."""
    return QueryFailed(406, "not-acceptable")


def conflict() -> QueryFailed:
    """Return the failure of a query that is based on an old state."""
    return QueryFailed(409, "conflict")


def result(query: Node, content: list[Node]) -> Node:
    """Return the answer to a query that succeeded."""
    return _answer(query, "result", content)


def refused(query: Node, failure: QueryFailed) -> Node:
    """Return the answer to a query that failed."""
    return _answer(query, "error", [failure.answer])


def child_of(query: Node) -> str:
    """Return the tag of the query's first child; empty if it has none."""
    return query.children[0].tag if query.children else ""


def _answer(query: Node, kind: str, content: list[Node]) -> Node:
    attrs: Attrs = {"from": query.attrs.get("to") or SERVER, "type": kind, "id": query.text("id")}
    return node("iq", attrs, *content)

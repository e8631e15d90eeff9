"""Answers mex queries, which are JSON inside a stanza and named by a number."""

from __future__ import annotations

import json
from collections.abc import Mapping

from simulator.accounts import Device, Directory
from simulator.announcing import announce_to_acquaintances
from simulator.answers import Handlers, bad_request
from simulator.binary_xml import Node, node
from simulator.mex import MexFailed, MexHandler, Variables
from simulator.stanzas import notification

_SET_ABOUT = "9152604461510864"
_LONGEST_ABOUT = 139


class MexQueries:
    """The handler of the namespace w:mex."""

    def __init__(self, directory: Directory, others: Mapping[str, MexHandler]) -> None:
        self._directory = directory
        self._handlers = {_SET_ABOUT: self._set_about, **others}

    def handlers(self) -> Handlers:
        """Return the handlers."""
        return {("w:mex", "get", "query"): self._answer}

    def _answer(self, asking: Device, query: Node) -> list[Node]:
        asked = query.find("query") or Node("query")
        try:
            body = json.loads(asked.data)
            variables = body["variables"]
        except (ValueError, KeyError, TypeError):
            raise bad_request() from None
        if not isinstance(variables, dict):
            raise bad_request()
        return [node("result", {}, json.dumps(self._answered(asking, asked.text("query_id"), variables)).encode())]

    def _answered(self, asking: Device, query_id: str, variables: Variables) -> dict[str, object]:
        try:
            return {"data": self._handlers.get(query_id, _unknown)(asking, variables)}
        except MexFailed as failure:
            about = {"error_code": failure.code, "is_retryable": False, "severity": "CRITICAL"}
            return {"data": None, "errors": [{"message": str(failure), "extensions": about}]}

    def _set_about(self, asking: Device, variables: Variables) -> Mapping[str, object]:
        match variables:
            case {"input": {"text": str(text)}} if len(text) <= _LONGEST_ABOUT:
                asking.account.profile.set_about(text)
            case _:
                raise MexFailed(400, "bad request")
        change = notification("status", asking.account.lid_jid(), node("set", {}, text.encode()))
        announce_to_acquaintances(self._directory, asking, change, "status")
        return {"xwa2_update_about": {"text": text}}


def _unknown(_asking: Device, _variables: Variables) -> Mapping[str, object]:
    raise MexFailed(404, "unknown query")

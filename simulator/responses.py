"""Builds the answers of the control interface."""

from __future__ import annotations

from aiohttp import web

from simulator.views import to_json


def shown(view: object) -> web.Response:
    """Return a view, or a list of views, as JSON."""
    return web.json_response(to_json(view))


def affected(count: int) -> web.Response:
    """Return the number of affected devices as JSON."""
    return web.json_response({"affected": count})

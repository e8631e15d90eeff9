"""Requests a passkey while a device is being linked. WhatsApp's name for the flow is "shortcake".

Only the request is simulated, because neonize cannot answer it.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time

from simulator.binary_xml import Node, node
from simulator.jid import SERVER


def prologue_request() -> Node:
    """Return the notification with WebAuthn options that the client passes to an authenticator."""
    options = {
        "challenge": _unpadded(os.urandom(32)),
        "timeout": 600_000,
        "rpId": "whatsapp.com",
        "allowCredentials": [
            {"id": _unpadded(os.urandom(32)), "type": "public-key", "transports": ["internal", "hybrid"]}
        ],
        "userVerification": "required",
        "extensions": {},
    }
    return node(
        "notification",
        {"from": SERVER, "type": "passkey_prologue_request", "id": secrets.token_hex(8), "t": int(time.time())},
        node("passkey_request_options", {}, json.dumps(options).encode()),
    )


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

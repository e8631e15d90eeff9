"""Computes the dedup key (origin) of an event, so that it is logged once however often WhatsApp sends it.

WhatsApp sends an event that was not acknowledged again with the same id (docs/neonize.md), perhaps to another process.
The library does not always notice: a message whose decryption was rolled back is decrypted again.
"""

import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import Any

from service.worker import identities
from service.worker.addresses import person_to_text, to_text
from service.worker.inbound.content.limits import readable
from zap.v1 import event_pb2

_HOUR = 3600
_HOUR_BYTES, _DIGEST_BYTES = 4, 12


def of_message(info: Any, parts: Iterable[str]) -> bytes:
    """Return the key of a message, from its canonical chat and sender, its id and the names of its fields.

    The fields count, because one id can come with two contents. The receiving account does not: two accounts that were
    paired with one session, one after the other, can be in one group, whose messages are the same for consumers.
    """
    source = info.MessageSource
    chat, sender = person_to_text(identities.chat(source)), person_to_text(identities.sender(source))
    return _origin(info.Timestamp // 1000, "message", chat, sender, info.ID, *sorted(parts))


def of_receipt(event: Any, message_ids: Iterable[str]) -> bytes:
    """Return the key of a receipt, or of a part of one, from its chat, device, kind, time and message ids."""
    source = event.MessageSource
    chat, sender = person_to_text(identities.chat(source)), to_text(identities.sender(source))
    return _origin(event.Timestamp, "receipt", chat, sender, str(event.Type), str(event.Timestamp), *message_ids)


def of_notification(seconds: int, event: event_pb2.Event) -> bytes:
    """Return the key of a notification with a time, from that time and the whole event."""
    return _origin(seconds, "notification", str(seconds), event.SerializeToString(deterministic=True).hex())


def of_resend_failed(failed: event_pb2.ResendFailed) -> bytes:
    """Return the key of a failed resend, from the whole event without its time."""
    return _origin(0, "resend failed", failed.SerializeToString(deterministic=True).hex())


def of_itself() -> bytes:
    """Return a random key for an event without a time, so that only the node's retry of it is recognised."""
    return _hour(int(time.time())) + secrets.token_bytes(_DIGEST_BYTES)


def _origin(seconds: int, *words: str | bytes) -> bytes:
    """Return 16 bytes: the hour, which keeps neighbours together in the log's index, and a digest of the words.

    WhatsApp keeps a message's time when it sends it again, and so does a sender that is asked for it again.
    """
    digest = hashlib.sha256()
    for word in words:
        encoded = readable(word).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4) + encoded)
    return _hour(seconds) + digest.digest()[:_DIGEST_BYTES]


def _hour(seconds: int) -> bytes:
    return (max(0, seconds) // _HOUR % (1 << 8 * _HOUR_BYTES)).to_bytes(_HOUR_BYTES)

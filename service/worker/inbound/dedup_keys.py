"""What an event came from, so that it is told once however often WhatsApp sends it.

What is not acknowledged before a connection is lost comes again, with the same id (docs/neonize.md), perhaps to another
process. The library does not always notice: what was decrypted and rolled back is decrypted once more.
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
    """Of a message: who wrote it where, by canonical addresses, its id, and the names of the fields that it has.

    One id can come with two contents. The account it came to is left out: two accounts that were paired with
    one session, one after the other, may be in one group, and its message is the same to whoever consumes it.
    """
    source = info.MessageSource
    chat, sender = person_to_text(identities.chat(source)), person_to_text(identities.sender(source))
    return _origin(info.Timestamp // 1000, "message", chat, sender, info.ID, *sorted(parts))


def of_receipt(event: Any, message_ids: Iterable[str]) -> bytes:
    """Of a receipt, or a part of one: whose device told what of which messages, and when."""
    source = event.MessageSource
    chat, sender = person_to_text(identities.chat(source)), to_text(identities.sender(source))
    return _origin(event.Timestamp, "receipt", chat, sender, str(event.Type), str(event.Timestamp), *message_ids)


def of_notification(seconds: int, event: event_pb2.Event) -> bytes:
    """Of what WhatsApp notifies of at a moment: all that consumers are told of it."""
    return _origin(seconds, "notification", str(seconds), event.SerializeToString(deterministic=True).hex())


def of_resend_failed(failed: event_pb2.ResendFailed) -> bytes:
    """Return the origin of a resend that failed: all that consumers are told of it, whenever it fails."""
    return _origin(0, "resend failed", failed.SerializeToString(deterministic=True).hex())


def of_itself() -> bytes:
    """Of what WhatsApp gives no moment: unlike any other, so that only the node's own repetition is recognised."""
    return _hour(int(time.time())) + secrets.token_bytes(_DIGEST_BYTES)


def _origin(seconds: int, *words: str | bytes) -> bytes:
    """16 bytes: the hour, by which the log's index finds it near its neighbours, and a digest of the words.

    WhatsApp keeps a message's time when it sends it again, and so does a sender who is asked for it again.
    """
    digest = hashlib.sha256()
    for word in words:
        encoded = readable(word).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4) + encoded)
    return _hour(seconds) + digest.digest()[:_DIGEST_BYTES]


def _hour(seconds: int) -> bytes:
    return (max(0, seconds) // _HOUR % (1 << 8 * _HOUR_BYTES)).to_bytes(_HOUR_BYTES)

"""One table from every way a session process can end to what becomes of its session.

The causes come from `service.worker` (what the library reported), from `service.workers` (what happened to the
process) and from nowhere else.
"""

import enum
from dataclasses import dataclass

from service.domain.backoff import CAP
from service.domain.pairing import PairingOutcome


class Cause(enum.Enum):
    """Why a session process ended, or must."""

    #: It was asked to.
    STOPPED = "STOPPED"
    #: The process died on its own: a signal, a Go panic, an exit that nobody asked for.
    PROCESS_DIED = "PROCESS_DIED"
    #: The process made no progress within its bound.
    PROCESS_STALLED = "PROCESS_STALLED"
    #: The session process lost its connection to Postgres, and left before the library could notice.
    DATABASE_LOST = "DATABASE_LOST"
    #: neonize raised for something it does not map; it goes on acknowledging what nobody reads (neonize-facts 8).
    CLIENT_ERROR = "CLIENT_ERROR"
    #: The address could not be reached: DNS or TCP refused, or what was reached hung up.
    UNREACHABLE = "UNREACHABLE"
    #: The proxy could not be reached, or would not connect to WhatsApp.
    PROXY_REFUSED = "PROXY_REFUSED"
    #: What answered could not prove that it is WhatsApp: TLS, or the handshake inside it.
    TLS_REFUSED = "TLS_REFUSED"
    #: Not connected for a minute, by a connect or a reconnection that neither succeeds nor fails.
    CONNECT_STALLED = "CONNECT_STALLED"
    #: WhatsApp answered the login with a 5xx, or the WebSocket with an HTTP error.
    WHATSAPP_ERROR = "WHATSAPP_ERROR"
    #: WhatsApp answered the login with a failure of which nobody knows whether it stays: 400, or a number like 418.
    CONNECTION_REFUSED = "CONNECTION_REFUSED"
    #: The device was unlinked while it was connected.
    LOGGED_OUT_ON_PHONE = "LOGGED_OUT_ON_PHONE"
    #: Failure 401 at login: the device was unlinked while it was away, or never let in.
    LOGGED_OUT_BY_WHATSAPP = "LOGGED_OUT_BY_WHATSAPP"
    #: Failure 403 at login.
    ACCOUNT_LOCKED = "ACCOUNT_LOCKED"
    #: Failure 406 at login.
    ACCOUNT_BANNED = "ACCOUNT_BANNED"
    #: Failure 402 at login, whatever code it carries.
    TEMPORARILY_BANNED = "TEMPORARILY_BANNED"
    #: The same device connected somewhere else.
    STREAM_REPLACED = "STREAM_REPLACED"
    #: Failure 405 or 409 at login.
    CLIENT_OUTDATED = "CLIENT_OUTDATED"
    #: All codes were shown, none was scanned.
    CODES_USED_UP = "CODES_USED_UP"
    #: The connection ended while there were still codes to show.
    PAIRING_INTERRUPTED = "PAIRING_INTERRUPTED"
    #: The scan carried a wrong HMAC or signature.
    SCAN_REJECTED = "SCAN_REJECTED"
    #: WhatsApp refused an unpaired client.
    PAIRING_REFUSED = "PAIRING_REFUSED"
    #: WhatsApp asked for a passkey.
    PASSKEY_REQUIRED = "PASSKEY_REQUIRED"
    #: The device to resume is not in the database.
    DEVICE_MISSING = "DEVICE_MISSING"


class Retry(enum.Enum):
    """When a paired session is tried again."""

    #: At once, then after growing waits.
    BACKOFF = "BACKOFF"
    #: Once after a lease's ttl; a second time soon after is the end.
    ONCE = "ONCE"
    #: After an hour, for as long as it takes: nobody knows whether it helps.
    HOURLY = "HOURLY"
    #: When WhatsApp said, or after a day.
    UNTIL = "UNTIL"
    #: Not before somebody calls Activate.
    NEVER = "NEVER"


class NextState(enum.Enum):
    """Which state a paired session goes to."""

    RECONNECTING = "RECONNECTING"
    SUSPENDED = "SUSPENDED"
    LOGGED_OUT = "LOGGED_OUT"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Policy:
    """What one cause does to a paired session, and to a pairing in progress."""

    reason: str
    fate: NextState
    retry: Retry
    pairing: PairingOutcome | None
    """How a pairing ends by it; None: a new process shows new codes."""
    longest_wait: float = CAP
    """Seconds that the waits between attempts grow to."""


_AGAIN = (NextState.RECONNECTING, Retry.BACKOFF, None)
_GONE = (NextState.LOGGED_OUT, Retry.NEVER, PairingOutcome.REJECTED)
_STUCK = (NextState.FAILED, Retry.NEVER, PairingOutcome.REJECTED)

POLICIES = {
    Cause.STOPPED: Policy("PROCESS_REPLACED", *_AGAIN),
    Cause.PROCESS_DIED: Policy("PROCESS_DIED", *_AGAIN),
    Cause.PROCESS_STALLED: Policy("PROCESS_STALLED", *_AGAIN),
    # A process that finds no database waits for it, and goes no further. So there is no reason to wait for long before
    # starting one, and every reason not to: sessions are to be back when Postgres is.
    Cause.DATABASE_LOST: Policy("DATABASE_LOST", *_AGAIN, longest_wait=1.0),
    Cause.CLIENT_ERROR: Policy("CLIENT_ERROR", *_AGAIN),
    Cause.UNREACHABLE: Policy("WHATSAPP_UNREACHABLE", *_AGAIN),
    Cause.WHATSAPP_ERROR: Policy("WHATSAPP_ERROR", *_AGAIN),
    Cause.PAIRING_INTERRUPTED: Policy("CONNECTION_LOST", *_AGAIN),
    Cause.PROXY_REFUSED: Policy("PROXY_REFUSED", *_AGAIN),
    Cause.TLS_REFUSED: Policy("TLS_REFUSED", *_AGAIN),
    Cause.CONNECT_STALLED: Policy("CONNECT_STALLED", *_AGAIN),
    # A number that nobody knows must neither keep a session away for ever nor become a storm of logins.
    Cause.CONNECTION_REFUSED: Policy(
        "CONNECTION_REFUSED", NextState.RECONNECTING, Retry.HOURLY, PairingOutcome.REJECTED
    ),
    Cause.CLIENT_OUTDATED: Policy("CLIENT_OUTDATED", *_STUCK),
    Cause.DEVICE_MISSING: Policy("DEVICE_MISSING", *_GONE),
    Cause.LOGGED_OUT_ON_PHONE: Policy("LOGGED_OUT_ON_PHONE", *_GONE),
    Cause.LOGGED_OUT_BY_WHATSAPP: Policy("LOGGED_OUT_BY_WHATSAPP", *_GONE),
    Cause.ACCOUNT_LOCKED: Policy("ACCOUNT_LOCKED", *_GONE),
    Cause.ACCOUNT_BANNED: Policy("ACCOUNT_BANNED", *_GONE),
    Cause.PAIRING_REFUSED: Policy("PAIRING_REFUSED", *_STUCK),
    Cause.TEMPORARILY_BANNED: Policy("TEMPORARILY_BANNED", NextState.SUSPENDED, Retry.UNTIL, PairingOutcome.REJECTED),
    Cause.STREAM_REPLACED: Policy("STREAM_REPLACED", NextState.RECONNECTING, Retry.ONCE, PairingOutcome.REJECTED),
    Cause.CODES_USED_UP: Policy("QR_NOT_SCANNED", NextState.FAILED, Retry.NEVER, PairingOutcome.TIMED_OUT),
    Cause.SCAN_REJECTED: Policy("SCAN_REJECTED", *_STUCK),
    Cause.PASSKEY_REQUIRED: Policy("PASSKEY_REQUIRED", NextState.FAILED, Retry.NEVER, PairingOutcome.PASSKEY_REQUIRED),
}


def policy_for(cause: Cause) -> Policy:
    """What becomes of a session whose process ended for this cause."""
    return POLICIES[cause]

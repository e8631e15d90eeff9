"""Map every cause of a session process's end to the session's next state.

Only `service.worker` (reports of the library) and `service.workers` (ends of the process) produce causes.
"""

import enum
from dataclasses import dataclass

from service.domain.backoff import LONGEST_WAIT_S
from service.domain.pairing import PairingOutcome


class Cause(enum.Enum):
    """Says why a session process ended, or must end."""

    #: The node stopped the process.
    STOPPED = "STOPPED"
    #: The process ended unexpectedly: a signal, a Go panic, an exit.
    PROCESS_DIED = "PROCESS_DIED"
    #: The process made no progress within its bound.
    PROCESS_STALLED = "PROCESS_STALLED"
    #: The process lost Postgres, and ended before the library could notice.
    DATABASE_LOST = "DATABASE_LOST"
    #: neonize raised an error that it does not map; it would continue to acknowledge events unread.
    CLIENT_ERROR = "CLIENT_ERROR"
    #: The address could not be reached: DNS or TCP refused, or what was reached hung up.
    UNREACHABLE = "UNREACHABLE"
    #: The proxy could not be reached, or would not connect to WhatsApp.
    PROXY_REFUSED = "PROXY_REFUSED"
    #: What answered could not prove that it is WhatsApp: TLS, or the handshake inside it.
    TLS_REFUSED = "TLS_REFUSED"
    #: Not connected for a minute: a connect or reconnection neither succeeds nor fails.
    CONNECT_STALLED = "CONNECT_STALLED"
    #: WhatsApp answered the login with a 5xx, or the WebSocket with an HTTP error.
    WHATSAPP_ERROR = "WHATSAPP_ERROR"
    #: WhatsApp answered the login with 400 or an unknown code, such as 418. It may be permanent.
    CONNECTION_REFUSED = "CONNECTION_REFUSED"
    #: The device was unlinked while it was connected.
    LOGGED_OUT_ON_PHONE = "LOGGED_OUT_ON_PHONE"
    #: Failure 401 at login: the device was unlinked while disconnected, or its pairing was not accepted.
    LOGGED_OUT_BY_WHATSAPP = "LOGGED_OUT_BY_WHATSAPP"
    #: Failure 403 at login.
    ACCOUNT_LOCKED = "ACCOUNT_LOCKED"
    #: Failure 406 at login.
    ACCOUNT_BANNED = "ACCOUNT_BANNED"
    #: Failure 402 at login, whatever code it carries.
    TEMPORARILY_BANNED = "TEMPORARILY_BANNED"
    #: Another client connected with the same device.
    STREAM_REPLACED = "STREAM_REPLACED"
    #: Failure 405 or 409 at login.
    CLIENT_OUTDATED = "CLIENT_OUTDATED"
    #: All codes were shown, none was scanned.
    CODES_USED_UP = "CODES_USED_UP"
    #: The connection ended before the last code.
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
    """Says when a paired session is retried."""

    #: At once, then after growing waits.
    BACKOFF = "BACKOFF"
    #: Once, after a lease's ttl; a second such end within REPLACED_WINDOW is final.
    ONCE = "ONCE"
    #: Every hour, without end.
    HOURLY = "HOURLY"
    #: At the time that WhatsApp gave, or after a day.
    UNTIL = "UNTIL"
    #: Only after Activate is called.
    NEVER = "NEVER"


class NextState(enum.Enum):
    """Names the state that a paired session goes to."""

    RECONNECTING = "RECONNECTING"
    SUSPENDED = "SUSPENDED"
    LOGGED_OUT = "LOGGED_OUT"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Policy:
    """Says what one cause does to a paired session, and to a pairing in progress."""

    reason: str
    next_state: NextState
    retry: Retry
    pairing: PairingOutcome | None
    """Outcome of a pairing in progress; None: a new process shows new codes."""
    longest_wait: float = LONGEST_WAIT_S
    """Upper bound of the backoff, in seconds."""


_RECONNECT = (NextState.RECONNECTING, Retry.BACKOFF, None)
_LOGGED_OUT = (NextState.LOGGED_OUT, Retry.NEVER, PairingOutcome.REJECTED)
_FAILED = (NextState.FAILED, Retry.NEVER, PairingOutcome.REJECTED)

POLICIES = {
    Cause.STOPPED: Policy("PROCESS_REPLACED", *_RECONNECT),
    Cause.PROCESS_DIED: Policy("PROCESS_DIED", *_RECONNECT),
    Cause.PROCESS_STALLED: Policy("PROCESS_STALLED", *_RECONNECT),
    # A new process waits for Postgres by itself. So start it soon: sessions come back as soon as Postgres does.
    Cause.DATABASE_LOST: Policy("DATABASE_LOST", *_RECONNECT, longest_wait=1.0),
    Cause.CLIENT_ERROR: Policy("CLIENT_ERROR", *_RECONNECT),
    Cause.UNREACHABLE: Policy("WHATSAPP_UNREACHABLE", *_RECONNECT),
    Cause.WHATSAPP_ERROR: Policy("WHATSAPP_ERROR", *_RECONNECT),
    Cause.PAIRING_INTERRUPTED: Policy("CONNECTION_LOST", *_RECONNECT),
    Cause.PROXY_REFUSED: Policy("PROXY_REFUSED", *_RECONNECT),
    Cause.TLS_REFUSED: Policy("TLS_REFUSED", *_RECONNECT),
    Cause.CONNECT_STALLED: Policy("CONNECT_STALLED", *_RECONNECT),
    # After an unknown code, neither give the session up nor log in often.
    Cause.CONNECTION_REFUSED: Policy(
        "CONNECTION_REFUSED", NextState.RECONNECTING, Retry.HOURLY, PairingOutcome.REJECTED
    ),
    Cause.CLIENT_OUTDATED: Policy("CLIENT_OUTDATED", *_FAILED),
    Cause.DEVICE_MISSING: Policy("DEVICE_MISSING", *_LOGGED_OUT),
    Cause.LOGGED_OUT_ON_PHONE: Policy("LOGGED_OUT_ON_PHONE", *_LOGGED_OUT),
    Cause.LOGGED_OUT_BY_WHATSAPP: Policy("LOGGED_OUT_BY_WHATSAPP", *_LOGGED_OUT),
    Cause.ACCOUNT_LOCKED: Policy("ACCOUNT_LOCKED", *_LOGGED_OUT),
    Cause.ACCOUNT_BANNED: Policy("ACCOUNT_BANNED", *_LOGGED_OUT),
    Cause.PAIRING_REFUSED: Policy("PAIRING_REFUSED", *_FAILED),
    Cause.TEMPORARILY_BANNED: Policy("TEMPORARILY_BANNED", NextState.SUSPENDED, Retry.UNTIL, PairingOutcome.REJECTED),
    Cause.STREAM_REPLACED: Policy("STREAM_REPLACED", NextState.RECONNECTING, Retry.ONCE, PairingOutcome.REJECTED),
    Cause.CODES_USED_UP: Policy("QR_NOT_SCANNED", NextState.FAILED, Retry.NEVER, PairingOutcome.TIMED_OUT),
    Cause.SCAN_REJECTED: Policy("SCAN_REJECTED", *_FAILED),
    Cause.PASSKEY_REQUIRED: Policy("PASSKEY_REQUIRED", NextState.FAILED, Retry.NEVER, PairingOutcome.PASSKEY_REQUIRED),
}

"""List the reasons for a session's state: a code, a sentence, and what a person should do.

Codes are for programs and never change; the sentences may.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Explains a code. `user_action`: what a person should do; empty: nothing."""

    code: str
    message: str
    user_action: str = ""


_ACTIVATE = "Call Activate and scan the QR code again."
_AGAIN = "While the session is ACTIVE it is tried again by itself; otherwise call Activate."

REASONS = {
    reason.code: reason
    for reason in (
        Reason("CONNECTION_LOST", "The connection to WhatsApp was lost; it is being restored."),
        Reason("KEEPALIVE_TIMEOUT", "WhatsApp does not answer keepalives; the connection is not trusted."),
        Reason("PROCESS_DIED", "The session's process ended without being asked; another one is started."),
        Reason("PROCESS_STALLED", "The session's process made no progress and was replaced."),
        Reason("PROCESS_REPLACED", "The session's process was stopped, as asked; another one is started."),
        Reason("DATABASE_LOST", "The connection to Postgres was lost; the session comes back with it."),
        Reason("CLIENT_ERROR", "The WhatsApp library gave up on something it did not understand; it is restarted."),
        Reason(
            "WHATSAPP_UNREACHABLE",
            "WhatsApp could not be reached.",
            f"Check the network, DNS and, if there is one, the session's proxy. {_AGAIN}",
        ),
        Reason(
            "PROXY_REFUSED",
            "The proxy could not be reached, or refused to connect to WhatsApp.",
            "Check the proxy's address, user and password, and that it allows web.whatsapp.com:443; Update gives the"
            f" session another one. {_AGAIN}",
        ),
        Reason(
            "TLS_REFUSED",
            "What answered could not prove that it is WhatsApp.",
            "Look for a proxy or firewall that opens TLS or answers in WhatsApp's place, and check this machine's clock"
            f" and certificates (SSL_CERT_FILE). {_AGAIN}",
        ),
        Reason(
            "CONNECT_STALLED",
            "For a minute there was no connection and no word why; the session's process was replaced.",
            "If it stays so, check the network and, if there is one, the session's proxy: something may take"
            f" connections and not answer. {_AGAIN}",
        ),
        Reason("WHATSAPP_ERROR", "WhatsApp refused the connection for now.", _AGAIN),
        Reason("WAITING_FOR_TURN", "The session waits for its turn to be started."),
        Reason("NODE_STOPPED", "The node that ran the session stopped; another one takes it over."),
        Reason("DEACTIVATED", "Deactivate was called.", "Call Activate to connect it again."),
        Reason("LOGGED_OUT_BY_CALLER", "Logout was called; the credentials are gone.", _ACTIVATE),
        Reason("LOGGED_OUT_ON_PHONE", "The device was unlinked on the phone; the credentials are gone.", _ACTIVATE),
        Reason(
            "LOGGED_OUT_BY_WHATSAPP",
            "WhatsApp does not know the device any more: it was unlinked, on the phone or by WhatsApp itself; the"
            " credentials are gone.",
            _ACTIVATE,
        ),
        Reason(
            "ACCOUNT_LOCKED",
            "WhatsApp has locked the account, or its phone was logged out; the credentials are gone.",
            "Open WhatsApp on the phone and do what it asks for. Then call Activate and scan the QR code again.",
        ),
        Reason(
            "ACCOUNT_BANNED",
            "WhatsApp has banned the account; the credentials are gone.",
            "Open WhatsApp on the phone and ask for a review. Once it is granted, call Activate and scan the QR code"
            " again.",
        ),
        Reason(
            "TEMPORARILY_BANNED",
            "WhatsApp has banned the account for a time.",
            f"Wait until the ban ends; send less, to people who know the number. {_AGAIN}",
        ),
        Reason(
            "STREAM_REPLACED",
            "Something else connected with the same credentials.",
            "Find out what else uses this database or these keys, and stop it. If the session is FAILED by then, call"
            " Activate.",
        ),
        Reason(
            "CLIENT_OUTDATED",
            "WhatsApp no longer accepts this version of the client.",
            "Update zap-service, then call Activate.",
        ),
        Reason(
            "CONNECTION_REFUSED",
            "WhatsApp refused the login with a code that nobody knows; it is in the log.",
            f"Look for an update of zap-service. {_AGAIN}",
        ),
        Reason("QR_NOT_SCANNED", "Nobody scanned a QR code in time.", "Call Activate and scan the code."),
        Reason(
            "SCAN_REJECTED",
            "The scan was not valid: its signature did not match this pairing.",
            "Call Activate and scan the new code.",
        ),
        Reason(
            "PAIRING_REFUSED",
            "WhatsApp refused the pairing before it was complete.",
            "Call Activate and scan the new code.",
        ),
        Reason(
            "PASSKEY_REQUIRED",
            "WhatsApp asks this account for a passkey to link a device, which this client cannot answer.",
            "On the phone, remove the passkey in Settings > Account, then call Activate.",
        ),
        Reason("PAIRING_CANCELLED", "The pairing was cancelled by a call."),
        Reason("DEVICE_MISSING", "The session's credentials are no longer in the database.", _ACTIVATE),
    )
}


def reason(code: str) -> Reason:
    """Return the reason of a code. An unknown code, of a newer release, gets a sentence that says so."""
    return REASONS.get(code) or Reason(code, "A reason that this release does not know.")

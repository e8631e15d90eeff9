"""List why a message was certainly not sent: kinds, each with a sentence and what a person should do.

`service.worker.errors` derives the kind from what the library raised. A message that the node refuses is NOT_SENT.
"""

import enum

from service.domain.reasons import Reason


class SendFailure(enum.Enum):
    """Names the kinds of failure. The names never change: callers see them, and the database stores them."""

    #: WhatsApp knows no account of this number.
    RECIPIENT_NOT_ON_WHATSAPP = "RECIPIENT_NOT_ON_WHATSAPP"
    #: WhatsApp knows no such group (404).
    GROUP_NOT_FOUND = "GROUP_NOT_FOUND"
    #: The account may not write in the group (403).
    NOT_IN_GROUP = "NOT_IN_GROUP"
    #: The account may not begin conversations for a time (463), or no more this month (475).
    ACCOUNT_RESTRICTED = "ACCOUNT_RESTRICTED"
    #: The account sends too much in too short a time (420, 429).
    RATE_LIMITED = "RATE_LIMITED"
    #: WhatsApp refused with any other code.
    REFUSED_BY_WHATSAPP = "REFUSED_BY_WHATSAPP"
    #: The message waited in the session's queue for too long.
    EXPIRED = "EXPIRED"
    #: A caller removed the message from the session's queue.
    CANCELLED = "CANCELLED"
    #: The message did not reach WhatsApp, or WhatsApp gave no code.
    NOT_SENT = "NOT_SENT"


SEND_FAILURES = {
    SendFailure[reason.code]: reason
    for reason in (
        Reason(
            "RECIPIENT_NOT_ON_WHATSAPP",
            "The recipient is not on WhatsApp.",
            "Check the number and its country code. Nothing can be sent to it before it has an account.",
        ),
        Reason("GROUP_NOT_FOUND", "There is no such group.", "Check the group's JID; the group may have been deleted."),
        Reason(
            "NOT_IN_GROUP",
            "The session's account is not in the group, or may not write in it.",
            "Have an admin of the group add the account, or let it write. Then another request_id sends the message.",
        ),
        Reason(
            "ACCOUNT_RESTRICTED",
            "WhatsApp does not let this account begin conversations for now.",
            "Do not repeat it: each attempt can make the restriction longer. Write only to people who wrote first, and"
            " open WhatsApp on the phone to see until when the restriction lasts.",
        ),
        Reason(
            "RATE_LIMITED",
            "The account sends more than WhatsApp allows in this time.",
            "Wait for some minutes before the session sends anything, and send more slowly from then on. Then another"
            " request_id sends the message.",
        ),
        Reason(
            "REFUSED_BY_WHATSAPP",
            "WhatsApp refused the message.",
            "A number from 500 on is a fault of WhatsApp's: wait for some minutes, then another request_id sends the"
            " message. After any other number, check the recipient and the account on the phone first: the same message"
            " is probably refused every time.",
        ),
        Reason(
            "EXPIRED",
            "The message waited for the session's connection for too long, and was not sent.",
            "Check the session's state. Another request_id sends the message.",
        ),
        Reason(
            "CANCELLED",
            "A caller cancelled the message before it was sent.",
            "If it is to be sent all the same, another request_id sends it.",
        ),
        Reason("NOT_SENT", "The message was not sent, for certain.", "Send it again with another request_id."),
    )
}

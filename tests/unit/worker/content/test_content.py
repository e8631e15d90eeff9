"""Every kind of content, from WhatsApp's message to what is told of it."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from neonize.proto.waCommon.WACommon_pb2 import MessageKey
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.worker.addresses import from_text
from service.worker.inbound.content.content import FORMS
from service.worker.inbound.content.limits import PICTURE
from service.worker.inbound.content.unwrap import unwrapped
from tests.unit.worker.inbound import info, source, told
from tests.unit.worker.test_messages import wire_field
from zap.v1 import content_pb2 as pb

Kind = pb.Content.Kind
OF_MINE = MessageKey(remoteJID="49151@s.whatsapp.net", fromMe=False, ID="MINE")
MINE = pb.MessageTarget(message_id="MINE", from_me=True)
OF_THEIRS = MessageKey(remoteJID="49151@s.whatsapp.net", fromMe=True, ID="THEIRS")
THEIRS = pb.MessageTarget(message_id="THEIRS", author="111@lid")
FILE: dict[str, Any] = {
    "URL": "https://mmg.example/f",
    "directPath": "/f",
    "mimetype": "image/jpeg",
    "fileSHA256": b"s" * 32,
    "fileEncSHA256": b"e" * 32,
    "mediaKey": b"k" * 32,
    "fileLength": 2**40,
    "mediaKeyTimestamp": 1_700_000_000,
}
TOLD_FILE: dict[str, Any] = {
    "url": "https://mmg.example/f",
    "direct_path": "/f",
    "mime_type": "image/jpeg",
    "sha256": b"s" * 32,
    "encrypted_sha256": b"e" * 32,
    "media_key": b"k" * 32,
    "size": 2**40,
    "media_key_time": Timestamp(seconds=1_700_000_000),
}


def text(body: str) -> Message:
    return Message(conversation=body)


def of_protocol(kind: "e2e.ProtocolMessage.Type.ValueType", **fields: Any) -> Message:
    return Message(protocolMessage=e2e.ProtocolMessage(type=kind, **fields))


CONTENTS: list[tuple[Message, "Kind.ValueType", dict[str, Any], str]] = [
    (text("plain"), Kind.KIND_TEXT, {"text": pb.TextContent(body="plain")}, "plain"),
    (
        Message(
            extendedTextMessage=e2e.ExtendedTextMessage(
                text="see https://a.b",
                matchedText="https://a.b",
                title="A",
                description="about",
                JPEGThumbnail=b"j",
                backgroundArgb=0xFF112233,
            )
        ),
        Kind.KIND_TEXT,
        {
            "text": pb.TextContent(
                body="see https://a.b",
                link="https://a.b",
                title="A",
                description="about",
                thumbnail=b"j",
                background_color=0xFF112233,
            )
        },
        "see https://a.b",
    ),
    (
        Message(imageMessage=e2e.ImageMessage(**FILE, caption="look", width=4, height=3, viewOnce=True)),
        Kind.KIND_IMAGE,
        {"media": pb.MediaContent(**TOLD_FILE, caption="look", width=4, height=3, is_view_once=True)},
        "look",
    ),
    (
        Message(videoMessage=e2e.VideoMessage(**FILE, caption="film", seconds=9, gifPlayback=True, width=1)),
        Kind.KIND_VIDEO,
        {"media": pb.MediaContent(**TOLD_FILE, caption="film", seconds=9, is_gif=True, width=1)},
        "film",
    ),
    (
        Message(ptvMessage=e2e.VideoMessage(**FILE, seconds=9)),
        Kind.KIND_VIDEO,
        {"media": pb.MediaContent(**TOLD_FILE, seconds=9, is_video_note=True)},
        "",
    ),
    (
        Message(audioMessage=e2e.AudioMessage(**FILE, seconds=5, PTT=True, waveform=bytes(64))),
        Kind.KIND_AUDIO,
        {"media": pb.MediaContent(**TOLD_FILE, seconds=5, is_voice_note=True, waveform=bytes(64))},
        "",
    ),
    (
        Message(documentMessage=e2e.DocumentMessage(**FILE, fileName="a.pdf", title="A", pageCount=7, caption="c")),
        Kind.KIND_DOCUMENT,
        {"media": pb.MediaContent(**TOLD_FILE, file_name="a.pdf", title="A", page_count=7, caption="c")},
        "c",
    ),
    (
        Message(stickerMessage=e2e.StickerMessage(**FILE, isAnimated=True, pngThumbnail=b"png", width=1, height=2)),
        Kind.KIND_STICKER,
        {"media": pb.MediaContent(**TOLD_FILE, is_animated=True, thumbnail=b"png", width=1, height=2)},
        "",
    ),
    (
        Message(reactionMessage=e2e.ReactionMessage(key=OF_MINE, text="👍")),
        Kind.KIND_REACTION,
        {"reaction": pb.ReactionContent(target=MINE, emoji="👍")},
        "",
    ),
    (
        Message(reactionMessage=e2e.ReactionMessage(key=OF_MINE, text="")),
        Kind.KIND_REACTION,
        {"reaction": pb.ReactionContent(target=MINE, is_removed=True)},
        "",
    ),
    (
        of_protocol(e2e.ProtocolMessage.MESSAGE_EDIT, key=OF_THEIRS, editedMessage=text("better")),
        Kind.KIND_EDIT,
        {
            "edit": pb.EditContent(
                target=THEIRS,
                content=pb.Content(kind=Kind.KIND_TEXT, field="conversation", text=pb.TextContent(body="better")),
            )
        },
        "better",
    ),
    (
        of_protocol(e2e.ProtocolMessage.REVOKE, key=OF_THEIRS),
        Kind.KIND_REVOKE,
        {"revoke": pb.RevokeContent(target=THEIRS)},
        "",
    ),
    (
        of_protocol(e2e.ProtocolMessage.EPHEMERAL_SETTING, ephemeralExpiration=86_400),
        Kind.KIND_DISAPPEARING_TIMER,
        {"disappearing_timer": pb.DisappearingTimerContent(seconds=86_400)},
        "",
    ),
    *(
        (
            Message(
                **{
                    name: e2e.PollCreationMessage(
                        name="lunch?",
                        encKey=b"the poll's secret",
                        options=[e2e.PollCreationMessage.Option(optionName=option) for option in ("yes", "no")],
                        selectableOptionsCount=1,
                    )
                }
            ),
            Kind.KIND_POLL,
            {"poll": pb.PollContent(question="lunch?", options=["yes", "no"], most_choices=1)},
            "lunch?",
        )
        for name in ("pollCreationMessage", "pollCreationMessageV2", "pollCreationMessageV3", "pollCreationMessageV5")
    ),
    (
        Message(pollUpdateMessage=e2e.PollUpdateMessage(pollCreationMessageKey=OF_MINE)),
        Kind.KIND_POLL_VOTE,
        {"poll_vote": pb.PollVoteContent(target=MINE)},
        "",
    ),
    (
        Message(
            locationMessage=e2e.LocationMessage(
                degreesLatitude=52.5,
                degreesLongitude=-13.25,
                name="Here",
                address="A street",
                URL="https://map",
                comment="come",
                accuracyInMeters=5,
                speedInMps=1.5,
                degreesClockwiseFromMagneticNorth=90,
                JPEGThumbnail=b"j",
            )
        ),
        Kind.KIND_LOCATION,
        {
            "location": pb.LocationContent(
                latitude=52.5,
                longitude=-13.25,
                name="Here",
                address="A street",
                url="https://map",
                comment="come",
                accuracy=5,
                speed=1.5,
                heading=90,
                thumbnail=b"j",
            )
        },
        "come",
    ),
    (
        Message(liveLocationMessage=e2e.LiveLocationMessage(degreesLatitude=1, sequenceNumber=7, caption="on my way")),
        Kind.KIND_LIVE_LOCATION,
        {"location": pb.LocationContent(latitude=1, is_live=True, sequence_number=7, comment="on my way")},
        "on my way",
    ),
    (
        Message(contactMessage=e2e.ContactMessage(displayName="Ada", vcard="BEGIN:VCARD")),
        Kind.KIND_CONTACTS,
        {"contacts": pb.ContactsContent(cards=[pb.ContactCard(name="Ada", vcard="BEGIN:VCARD")])},
        "",
    ),
    (
        Message(
            contactsArrayMessage=e2e.ContactsArrayMessage(
                displayName="2 contacts",
                contacts=[e2e.ContactMessage(displayName=name, vcard="v") for name in ("Ada", "Bob")],
            )
        ),
        Kind.KIND_CONTACTS,
        {
            "contacts": pb.ContactsContent(
                title="2 contacts", cards=[pb.ContactCard(name=name, vcard="v") for name in ("Ada", "Bob")]
            )
        },
        "",
    ),
    (
        Message(
            buttonsMessage=e2e.ButtonsMessage(
                text="T",
                contentText="choose",
                footerText="F",
                buttons=[
                    e2e.ButtonsMessage.Button(
                        buttonID="1", buttonText=e2e.ButtonsMessage.Button.ButtonText(displayText="one")
                    )
                ],
            )
        ),
        Kind.KIND_MENU,
        {"menu": pb.MenuContent(title="T", body="choose", footer="F", options=[pb.MenuOption(id="1", text="one")])},
        "choose",
    ),
    (
        Message(
            listMessage=e2e.ListMessage(
                title="T",
                description="choose",
                footerText="F",
                sections=[e2e.ListMessage.Section(rows=[e2e.ListMessage.Row(rowID="1", title="one")])],
            )
        ),
        Kind.KIND_MENU,
        {"menu": pb.MenuContent(title="T", body="choose", footer="F", options=[pb.MenuOption(id="1", text="one")])},
        "choose",
    ),
    (
        Message(
            templateMessage=e2e.TemplateMessage(
                hydratedTemplate=e2e.TemplateMessage.HydratedFourRowTemplate(
                    hydratedTitleText="T",
                    hydratedContentText="choose",
                    hydratedFooterText="F",
                    hydratedButtons=[
                        e2e.HydratedTemplateButton(
                            quickReplyButton=e2e.HydratedTemplateButton.HydratedQuickReplyButton(
                                ID="1", displayText="one"
                            )
                        ),
                        e2e.HydratedTemplateButton(
                            urlButton=e2e.HydratedTemplateButton.HydratedURLButton(displayText="page", URL="https://a")
                        ),
                    ],
                )
            )
        ),
        Kind.KIND_MENU,
        {
            "menu": pb.MenuContent(
                title="T",
                body="choose",
                footer="F",
                options=[pb.MenuOption(id="1", text="one"), pb.MenuOption(text="page")],
            )
        },
        "choose",
    ),
    (
        Message(
            interactiveMessage=e2e.InteractiveMessage(
                header=e2e.InteractiveMessage.Header(title="T"),
                body=e2e.InteractiveMessage.Body(text="choose"),
                footer=e2e.InteractiveMessage.Footer(text="F"),
                nativeFlowMessage=e2e.InteractiveMessage.NativeFlowMessage(
                    buttons=[
                        e2e.InteractiveMessage.NativeFlowMessage.NativeFlowButton(
                            name="quick_reply", buttonParamsJSON='{"id":"1"}'
                        )
                    ]
                ),
            )
        ),
        Kind.KIND_MENU,
        {"menu": pb.MenuContent(title="T", body="choose", footer="F")},
        "choose",
    ),
    (
        Message(
            buttonsResponseMessage=e2e.ButtonsResponseMessage(selectedButtonID="1", selectedDisplayText="one"),
        ),
        Kind.KIND_SELECTION,
        {"selection": pb.SelectionContent(id="1", text="one")},
        "one",
    ),
    (
        Message(
            listResponseMessage=e2e.ListResponseMessage(
                title="one", singleSelectReply=e2e.ListResponseMessage.SingleSelectReply(selectedRowID="1")
            )
        ),
        Kind.KIND_SELECTION,
        {"selection": pb.SelectionContent(id="1", text="one")},
        "one",
    ),
    (
        Message(templateButtonReplyMessage=e2e.TemplateButtonReplyMessage(selectedID="1")),
        Kind.KIND_SELECTION,
        {"selection": pb.SelectionContent(id="1")},
        "1",
    ),
    (
        Message(
            interactiveResponseMessage=e2e.InteractiveResponseMessage(
                body=e2e.InteractiveResponseMessage.Body(text="one"),
                nativeFlowResponseMessage=e2e.InteractiveResponseMessage.NativeFlowResponseMessage(
                    name="menu", paramsJSON='{"id":"1"}'
                ),
            )
        ),
        Kind.KIND_SELECTION,
        {"selection": pb.SelectionContent(text="one", parameters='{"id":"1"}')},
        "one",
    ),
    (
        Message(
            groupInviteMessage=e2e.GroupInviteMessage(
                groupJID="1@g.us",
                groupName="G",
                caption="join",
                inviteCode="SECRETCODE",
                inviteExpiration=1_700_000_000,
            )
        ),
        Kind.KIND_GROUP_INVITATION,
        {
            "group_invitation": pb.GroupInvitationContent(
                group="1@g.us", name="G", caption="join", expire_time=Timestamp(seconds=1_700_000_000)
            )
        },
        "join",
    ),
    (
        Message(
            eventMessage=e2e.EventMessage(
                name="Party",
                description="all night",
                location=e2e.LocationMessage(name="Here"),
                joinLink="https://call",
                startTime=1_700_000_000,
                endTime=1_700_003_600,
                isCanceled=True,
            )
        ),
        Kind.KIND_APPOINTMENT,
        {
            "appointment": pb.AppointmentContent(
                name="Party",
                description="all night",
                location=pb.LocationContent(name="Here"),
                join_link="https://call",
                start_time=Timestamp(seconds=1_700_000_000),
                end_time=Timestamp(seconds=1_700_003_600),
                is_cancelled=True,
            )
        },
        "",
    ),
    (
        Message(albumMessage=e2e.AlbumMessage(expectedImageCount=3, expectedVideoCount=1)),
        Kind.KIND_ALBUM,
        {"album": pb.AlbumContent(images=3, videos=1)},
        "",
    ),
    (
        Message(
            productMessage=e2e.ProductMessage(
                businessOwnerJID="1@s.whatsapp.net",
                body="this one",
                product=e2e.ProductMessage.ProductSnapshot(
                    productID="7",
                    title="Chair",
                    description="red",
                    currencyCode="EUR",
                    priceAmount1000=-1,
                    retailerID="R",
                    URL="https://shop",
                ),
            )
        ),
        Kind.KIND_PRODUCT,
        {
            "product": pb.ProductContent(
                product_id="7",
                business="1@s.whatsapp.net",
                title="Chair",
                description="red",
                currency_code="EUR",
                price_thousandths=-1,
                retailer_id="R",
                url="https://shop",
                body="this one",
            )
        },
        "this one",
    ),
    (
        Message(
            orderMessage=e2e.OrderMessage(
                orderID="8",
                orderTitle="O",
                message="please",
                sellerJID="1@s.whatsapp.net",
                itemCount=-2,
                totalCurrencyCode="EUR",
                totalAmount1000=5000,
                token="SECRETTOKEN",
            )
        ),
        Kind.KIND_ORDER,
        {
            "order": pb.OrderContent(
                order_id="8",
                title="O",
                message="please",
                seller="1@s.whatsapp.net",
                item_count=-2,
                currency_code="EUR",
                total_thousandths=5000,
            )
        },
        "please",
    ),
    (
        Message(pinInChatMessage=e2e.PinInChatMessage(key=OF_MINE, type=e2e.PinInChatMessage.PIN_FOR_ALL)),
        Kind.KIND_PIN,
        {"pin": pb.PinContent(target=MINE, is_pinned=True)},
        "",
    ),
    (
        Message(keepInChatMessage=e2e.KeepInChatMessage(key=OF_MINE, keepType=e2e.UNDO_KEEP_FOR_ALL)),
        Kind.KIND_KEEP,
        {"keep": pb.KeepContent(target=MINE)},
        "",
    ),
    (
        Message(commentMessage=e2e.CommentMessage(targetMessageKey=OF_MINE, message=text("nice"))),
        Kind.KIND_COMMENT,
        {"comment": pb.CommentContent(target=MINE, text="nice")},
        "nice",
    ),
    *(
        (Message(**{name: body}), Kind.KIND_ENCRYPTED, {"encrypted": pb.EncryptedContent(target=MINE)}, "")
        for name, body in (
            ("encReactionMessage", e2e.EncReactionMessage(targetMessageKey=OF_MINE, encPayload=b"e")),
            ("encCommentMessage", e2e.EncCommentMessage(targetMessageKey=OF_MINE, encPayload=b"e")),
            ("secretEncryptedMessage", e2e.SecretEncryptedMessage(targetMessageKey=OF_MINE, encPayload=b"e")),
            ("encEventResponseMessage", e2e.EncEventResponseMessage(eventCreationMessageKey=OF_MINE, encPayload=b"e")),
        )
    ),
]


@pytest.mark.parametrize(
    ("message", "kind", "expected", "words"),
    CONTENTS,
    ids=[message.ListFields()[0][0].name for message, *_ in CONTENTS],
)
def test_each_kind_of_content_is_told(
    message: Message, kind: "Kind.ValueType", expected: dict[str, Any], words: str
) -> None:
    received = told(message)
    field = received.content.field
    assert received.content == pb.Content(kind=kind, field=field, **expected)
    assert field.partition(".")[0] == message.ListFields()[0][0].name
    assert received.text == words
    assert received.raw == message.SerializeToString()
    assert not received.is_truncated


def test_every_kind_there_is_has_a_content_above() -> None:
    assert {kind for _, kind, _, _ in CONTENTS} == set(Kind.values()) - {Kind.KIND_UNSPECIFIED}
    covered = {message.ListFields()[0][0].name for message, *_ in CONTENTS}
    assert set(FORMS) - covered <= {"pollCreationMessageV6"}


@pytest.mark.parametrize(
    "message",
    [
        Message(pinInChatMessage=e2e.PinInChatMessage(key=OF_MINE)),
        Message(keepInChatMessage=e2e.KeepInChatMessage(key=OF_MINE)),
        Message.FromString(wire_field(63, b"\x10\x09")),
        Message.FromString(wire_field(51, b"\x10\x09")),
    ],
    ids=["pinInChatMessage", "keepInChatMessage", "a new kind of pin", "a new kind of keep"],
)
def test_what_neither_pins_nor_unpins_is_told_by_its_name(message: Message) -> None:
    assert told(message).content == pb.Content(field=message.ListFields()[0][0].name)


def test_an_encrypted_edit_is_an_edit() -> None:
    body = e2e.SecretEncryptedMessage(targetMessageKey=OF_MINE, encPayload=b"e")
    assert not told(Message(secretEncryptedMessage=body)).is_edit
    body.secretEncType = e2e.SecretEncryptedMessage.MESSAGE_EDIT
    assert told(Message(secretEncryptedMessage=body)).is_edit


def test_no_secret_of_a_poll_an_invitation_or_an_order_is_told_with_types() -> None:
    for message, *_ in CONTENTS:
        shown = told(message).content.SerializeToString()
        assert not any(secret in shown for secret in (b"the poll's secret", b"SECRETCODE", b"SECRETTOKEN"))


WRAPPINGS = sorted(
    field.name
    for field in Message.DESCRIPTOR.fields
    if field.message_type and field.message_type.name in {"FutureProofMessage", "DeviceSentMessage"}
)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_the_content_is_found_in_every_wrapping(name: str) -> None:
    kind = e2e.DeviceSentMessage if name == "deviceSentMessage" else e2e.FutureProofMessage
    message = Message(**{name: kind(message=text("inside"))})
    assert unwrapped(message).wrappings == {name}
    assert told(message).text == "inside"


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("ephemeralMessage", "is_disappearing"),
        ("viewOnceMessage", "is_view_once"),
        ("viewOnceMessageV2", "is_view_once"),
        ("viewOnceMessageV2Extension", "is_view_once"),
        ("editedMessage", "is_edit"),
    ],
)
def test_a_wrapping_that_says_something_is_told(name: str, flag: str) -> None:
    assert getattr(told(Message(**{name: e2e.FutureProofMessage(message=text("inside"))})), flag)


def test_nobody_hides_a_content_behind_a_wrapping() -> None:
    keys = Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="g"))
    received = told(Message(conversation="seen", questionMessage=e2e.FutureProofMessage(message=keys)))
    assert (received.text, list(received.content.other_fields)) == ("seen", ["questionMessage"])


def test_a_wrapping_around_nothing_is_told_by_its_name() -> None:
    assert told(Message(viewOnceMessage=e2e.FutureProofMessage())).content == pb.Content(field="viewOnceMessage")


def test_a_picture_beyond_the_bound_is_left_out_and_that_is_said() -> None:
    received = told(Message(imageMessage=e2e.ImageMessage(JPEGThumbnail=bytes(PICTURE + 1))))
    assert (received.content.media.thumbnail, received.is_truncated) == (b"", True)


@pytest.mark.parametrize(
    "message",
    [
        Message(buttonsMessage=e2e.ButtonsMessage(buttons=[e2e.ButtonsMessage.Button()] * 1025)),
        Message(
            listMessage=e2e.ListMessage(sections=[e2e.ListMessage.Section(rows=[e2e.ListMessage.Row()] * 600)] * 2)
        ),
    ],
    ids=["buttons", "rows"],
)
def test_a_menu_longer_than_the_bound_is_cut(message: Message) -> None:
    received = told(message)
    assert (len(received.content.menu.options), received.is_truncated) == (1024, True)


@pytest.mark.parametrize(
    ("chat", "edit_attribute", "by_admin"),
    [("1-2@g.us", "8", True), ("1-2@g.us", "7", False), ("1-2@g.us", "", False), ("9@lid", "8", False)],
)
def test_whatsapp_says_who_deletes_as_an_administrator_and_not_the_sender(
    chat: str, edit_attribute: str, by_admin: bool
) -> None:
    of_another = MessageKey(ID="X", fromMe=False, participant="4@lid", remoteJID=chat)
    about = info(source(Chat=from_text(chat)), Edit=edit_attribute)
    message = told(of_protocol(e2e.ProtocolMessage.REVOKE, key=of_another), about)
    assert message.content.revoke.by_admin is by_admin


def test_an_edit_of_an_edit_is_not_followed() -> None:
    edit = of_protocol(e2e.ProtocolMessage.MESSAGE_EDIT, key=OF_THEIRS, editedMessage=text("again"))
    received = told(of_protocol(e2e.ProtocolMessage.MESSAGE_EDIT, key=OF_THEIRS, editedMessage=edit))
    assert received.content.edit.content == pb.Content(kind=Kind.KIND_EDIT, field="protocolMessage.MESSAGE_EDIT")


def test_what_else_is_in_a_message_is_named() -> None:
    received = told(Message(conversation="a", chat=e2e.Chat(ID="b"), call=e2e.Call(callReason="c")))
    assert (received.text, sorted(received.content.other_fields)) == ("a", ["call", "chat"])

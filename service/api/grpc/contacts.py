"""Serves zap.v1.ContactService: parses requests, calls the core, converts results."""

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.empty_pb2 import Empty

from service.api.grpc.context import Context, caller_of
from service.api.grpc.process_requests import ask
from service.domain.caller import Caller
from service.domain.contacts import PersonAddress
from service.domain.number_checks import NumberAnswer, digits_of
from service.ports.contacts import ContactStore
from service.protocol import contacts
from service.protocol.contacts import address_message
from service.protocol.sending import recipient
from service.sessions.number_checks import NumberChecker
from service.sessions.process_calls import ProcessCalls
from zap.v1 import contact_pb2 as pb
from zap.v1.contact_pb2_grpc import ContactServiceServicer
from zap.worker.v1 import contacts_pb2

NAME = pb.DESCRIPTOR.services_by_name["ContactService"].full_name


class ContactServicer(ContactServiceServicer):
    """Reads the store, or asks the process of the session and completes its answer from the store."""

    def __init__(
        self, store: Callable[[Caller], ContactStore], calls: ProcessCalls, number_checker: NumberChecker
    ) -> None:
        self._store = store
        self._calls = calls
        self._number_checker = number_checker

    async def CheckNumbers(self, request: pb.CheckNumbersRequest, context: Context) -> pb.CheckNumbersResponse:
        session_id = request.session_id

        async def ask_whatsapp(numbers: Sequence[str]) -> Mapping[str, NumberAnswer]:
            asked = contacts_pb2.CheckNumbers(numbers=numbers)
            found = await ask(self._calls, context, session_id, asked, contacts_pb2.CheckedNumbers)
            return {
                each.number: NumberAnswer(each.is_on_whatsapp, each.jid, each.business_name) for each in found.numbers
            }

        # Answers that are kept are given for connected sessions only, like all others.
        await self._calls.connected(caller_of(context), session_id)
        numbers = [(text, digits_of(text)) for text in request.numbers]
        valid = [digits for _, digits in numbers if digits]
        answers = await self._number_checker.check(session_id, valid, ask_whatsapp)
        jids = [answer.jid for answer in answers.values() if answer.is_on_whatsapp]
        return contacts.number_checks(numbers, answers, await self._addresses(context, session_id, jids))

    async def Get(self, request: pb.GetContactRequest, context: Context) -> pb.Contact:
        store = self._store(caller_of(context))
        return contacts.contact_message(await store.get(request.session_id, recipient(request.person)))

    async def List(self, request: pb.ListContactsRequest, context: Context) -> pb.ListContactsResponse:
        page = contacts.contact_page(request)
        # Query one more than requested: if it exists, there is another page.
        store = self._store(caller_of(context))
        found = await store.list(request.session_id, page.chosen, page.after, page.size + 1)
        shown = found[: page.size]
        has_more = len(found) > page.size
        token = contacts.contact_page_token(page.chosen, shown[-1].address.jid) if has_more else ""
        return pb.ListContactsResponse(
            contacts=[contacts.contact_message(contact) for contact in shown], next_page_token=token
        )

    async def ResolveLid(self, request: pb.ResolveLidRequest, context: Context) -> pb.ResolveLidResponse:
        store = self._store(caller_of(context))
        found = await store.addresses(request.session_id, [recipient(person) for person in request.people])
        return pb.ResolveLidResponse(addresses=[address_message(address) for address in found])

    async def GetAbout(self, request: pb.GetAboutRequest, context: Context) -> pb.About:
        jid = recipient(request.person)
        asked = contacts_pb2.GetUserInfo(jid=jid)
        info = await ask(self._calls, context, request.session_id, asked, contacts_pb2.UserInfo)
        return pb.About(
            address=address_message(await self._address(context, request.session_id, jid)),
            text=info.about,
            picture_id=info.picture_id,
        )

    async def GetPicture(self, request: pb.GetPictureRequest, context: Context) -> pb.Picture:
        jid = recipient(request.whose)
        asked = contacts_pb2.GetPicture(
            jid=jid, is_preview=request.is_preview, known_picture_id=request.known_picture_id
        )
        found = await ask(self._calls, context, request.session_id, asked, contacts_pb2.FoundPicture)
        return pb.Picture(
            address=address_message(await self._address(context, request.session_id, jid)),
            picture_id=found.picture_id or request.known_picture_id,
            url=found.url,
            is_unchanged=not found.url,
        )

    async def ListBlocked(self, request: pb.ListBlockedRequest, context: Context) -> pb.ListBlockedResponse:
        asked = contacts_pb2.GetBlockList()
        found = await ask(self._calls, context, request.session_id, asked, contacts_pb2.BlockList)
        addresses = await self._addresses(context, request.session_id, found.jids)
        by_jid = sorted(addresses.values(), key=lambda address: address.jid)
        return pb.ListBlockedResponse(addresses=[address_message(address) for address in by_jid])

    async def Block(self, request: pb.BlockRequest, context: Context) -> pb.BlockResponse:
        address = await self._set_blocked(context, request.session_id, request.person, is_blocked=True)
        return pb.BlockResponse(address=address_message(address))

    async def Unblock(self, request: pb.UnblockRequest, context: Context) -> pb.UnblockResponse:
        address = await self._set_blocked(context, request.session_id, request.person, is_blocked=False)
        return pb.UnblockResponse(address=address_message(address))

    async def _set_blocked(self, context: Context, session_id: str, person: str, *, is_blocked: bool) -> PersonAddress:
        jid = recipient(person)
        await ask(self._calls, context, session_id, contacts_pb2.SetBlocked(jid=jid, is_blocked=is_blocked), Empty)
        return await self._address(context, session_id, jid)

    async def _address(self, context: Context, session_id: str, jid: str) -> PersonAddress:
        return (await self._addresses(context, session_id, [jid]))[jid]

    async def _addresses(self, context: Context, session_id: str, jids: Sequence[str]) -> Mapping[str, PersonAddress]:
        """Return the addresses by JID."""
        found = await self._store(caller_of(context)).addresses(session_id, jids)
        return dict(zip(jids, found, strict=True))

"""Contacts, profile, presence and calls: from a caller through the real library to the simulated WhatsApp.

tests/rpc has the conversions, and tests/unit/worker/test_contact_calls.py each call of the library.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.eventually import eventually
from tests.service_process import ServiceProcess, error_info
from zap.v1 import call_service_pb2, contact_pb2, presence_service_pb2, profile_pb2, session_pb2
from zap.v1.call_service_pb2_grpc import CallServiceStub
from zap.v1.contact_pb2_grpc import ContactServiceStub
from zap.v1.presence_service_pb2_grpc import PresenceServiceStub
from zap.v1.profile_pb2_grpc import ProfileServiceStub

if TYPE_CHECKING:
    from zap.v1.call_service_pb2_grpc import CallServiceAsyncStub
    from zap.v1.contact_pb2_grpc import ContactServiceAsyncStub
    from zap.v1.presence_service_pb2_grpc import PresenceServiceAsyncStub
    from zap.v1.profile_pb2_grpc import ProfileServiceAsyncStub

Result = contact_pb2.NumberCheck
UNUSED_NUMBER = "4915119999999"


@dataclass(frozen=True)
class Account:
    """A session, and who it is."""

    session_id: str
    phone: str
    node: ServiceProcess

    @property
    def contacts(self) -> "ContactServiceAsyncStub":
        return ContactServiceStub(self.node.channel)

    @property
    def profiles(self) -> "ProfileServiceAsyncStub":
        return ProfileServiceStub(self.node.channel)

    @property
    def presences(self) -> "PresenceServiceAsyncStub":
        return PresenceServiceStub(self.node.channel)

    @property
    def calls(self) -> "CallServiceAsyncStub":
        return CallServiceStub(self.node.channel)

    async def check(self, *numbers: str) -> list[contact_pb2.NumberCheck]:
        request = contact_pb2.CheckNumbersRequest(session_id=self.session_id, numbers=numbers)
        return list((await self.contacts.CheckNumbers(request)).checks)

    async def resolve(self, person: str) -> tuple[str, str]:
        """The phone and the LID of a person."""
        request = contact_pb2.ResolveLidRequest(session_id=self.session_id, people=[person])
        (address,) = (await self.contacts.ResolveLid(request)).addresses
        return address.phone, address.lid


async def paired(node: ServiceProcess, simulator: SimulatorControl, name: str = "Anna") -> Account:
    """A connected session, whose process has learned the account's name from the phone."""
    phone = await new_phone(simulator, name)
    session_id = f"s{phone}"
    await pair(node, simulator, session_id, phone)

    async def has_name() -> bool:
        return (await node.status(session_id)).account.push_name == name

    await eventually(has_name, "the account's name")
    return Account(session_id, phone, node)


async def reason_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The code and the reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error_info(error.value).reason


async def test_checked_numbers_have_results_one_by_one_and_their_lids_are_learned(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    friend, anna = await new_phone(simulator, "Bob"), await paired(shared_node, simulator)
    lid = (await simulator.phone(friend)).lid
    assert await anna.resolve(friend) == (f"+{friend}", "")
    on, off, invalid = await anna.check(f"+{friend}", UNUSED_NUMBER, "abc")
    assert (on.result, on.address.phone, on.address.lid) == (Result.RESULT_ON_WHATSAPP, f"+{friend}", lid)
    assert (off.result, off.HasField("address")) == (Result.RESULT_NOT_ON_WHATSAPP, False)
    assert invalid.result == Result.RESULT_INVALID
    assert await anna.resolve(friend) == await anna.resolve(lid) == (f"+{friend}", lid)


async def test_numbers_are_not_asked_for_twice(shared_node: ServiceProcess, simulator: SimulatorControl) -> None:
    friend, anna = await new_phone(simulator, "Bob"), await paired(shared_node, simulator)
    first = await anna.check(friend, UNUSED_NUMBER)
    await simulator.fail_queries("usync", 429)
    assert await anna.check(friend, UNUSED_NUMBER) == first
    assert await reason_of(anna.check("4915119999998")) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


async def test_who_writes_becomes_a_contact_that_is_known_without_a_connection(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    friend, anna = await new_phone(simulator, "Bob Builder"), await paired(shared_node, simulator)
    await anna.check(friend)
    await simulator.write(friend, anna.phone, "hello")
    listing = contact_pb2.ListContactsRequest(session_id=anna.session_id, search="builder")

    async def found() -> list[contact_pb2.Contact]:
        return list((await anna.contacts.List(listing)).contacts)

    (bob,) = await eventually(found, "the contact")
    assert (bob.push_name, bob.address.phone) == ("Bob Builder", f"+{friend}")
    await shared_node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=anna.session_id))

    async def is_away() -> bool:
        return not (await shared_node.status(anna.session_id)).HasField("owner")

    await eventually(is_away, "the end of the session's process")
    for person in (friend, bob.address.lid):
        request = contact_pb2.GetContactRequest(session_id=anna.session_id, person=person)
        assert await anna.contacts.Get(request) == bob
    stranger = contact_pb2.GetContactRequest(session_id=anna.session_id, person=UNUSED_NUMBER)
    assert await reason_of(anna.contacts.Get(stranger)) == (grpc.StatusCode.NOT_FOUND, "CONTACT_NOT_FOUND")
    assert await reason_of(anna.check(friend)) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE")


async def test_a_number_without_an_account_is_not_found(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    anna = await paired(shared_node, simulator)
    who = {"session_id": anna.session_id, "person": UNUSED_NUMBER}
    not_found = (grpc.StatusCode.NOT_FOUND, "RECIPIENT_NOT_ON_WHATSAPP")
    assert await reason_of(anna.contacts.GetAbout(contact_pb2.GetAboutRequest(**who))) == not_found
    assert await reason_of(anna.contacts.Block(contact_pb2.BlockRequest(**who))) == not_found


async def test_the_errors_of_pictures_are_those_of_whatsapp(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    friend, anna = await new_phone(simulator, "Bob"), await paired(shared_node, simulator)
    request = contact_pb2.GetPictureRequest(session_id=anna.session_id, whose=friend)
    assert await reason_of(anna.contacts.GetPicture(request)) == (grpc.StatusCode.NOT_FOUND, "PICTURE_NOT_FOUND")
    await simulator.fail_queries("w:profile:picture", 401, "not-authorized")
    assert await reason_of(anna.contacts.GetPicture(request)) == (grpc.StatusCode.PERMISSION_DENIED, "PICTURE_HIDDEN")


async def test_a_privacy_setting_is_changed_although_the_library_raises(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    anna = await paired(shared_node, simulator)
    before = await anna.profiles.GetPrivacy(profile_pb2.GetPrivacyRequest(session_id=anna.session_id))
    assert before.calls == profile_pb2.PRIVACY_AUDIENCE_ALL
    request = profile_pb2.SetPrivacyRequest(
        session_id=anna.session_id,
        setting=profile_pb2.SetPrivacyRequest.SETTING_CALLS,
        audience=profile_pb2.PRIVACY_AUDIENCE_KNOWN,
    )
    changed = await anna.profiles.SetPrivacy(request)
    before.calls = profile_pb2.PRIVACY_AUDIENCE_KNOWN
    assert changed == before
    assert await anna.profiles.GetPrivacy(profile_pb2.GetPrivacyRequest(session_id=anna.session_id)) == changed
    await simulator.fail_queries("privacy", 400)
    refused = (grpc.StatusCode.FAILED_PRECONDITION, "REFUSED_BY_WHATSAPP")
    assert await reason_of(anna.profiles.SetPrivacy(request)) == refused


async def test_privacy_settings_that_whatsapp_refuses_are_no_settings(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    anna = await paired(shared_node, simulator)
    # The library reads them once for each connection, and logs its errors.
    await simulator.fail_queries("privacy", 500)
    request = profile_pb2.GetPrivacyRequest(session_id=anna.session_id)
    assert await reason_of(anna.profiles.GetPrivacy(request)) == (grpc.StatusCode.UNAVAILABLE, "CALL_FAILED")
    assert (await anna.profiles.GetPrivacy(request)).calls == profile_pb2.PRIVACY_AUDIENCE_ALL


async def test_the_profile_is_the_account_s(shared_node: ServiceProcess, simulator: SimulatorControl) -> None:
    anna = await paired(shared_node, simulator, "Anna")
    profile = await anna.profiles.Get(profile_pb2.GetProfileRequest(session_id=anna.session_id))
    lid = (await simulator.phone(anna.phone)).lid
    assert (profile.push_name, profile.address.phone) == ("Anna", f"+{anna.phone}")
    assert profile.address.jid == profile.address.lid == lid


async def test_presence_typing_and_rejections_leave(shared_node: ServiceProcess, simulator: SimulatorControl) -> None:
    friend, anna = await new_phone(simulator, "Bob"), await paired(shared_node, simulator)
    session = {"session_id": anna.session_id}
    for is_online in (True, False):
        await anna.presences.SetPresence(presence_service_pb2.SetPresenceRequest(**session, is_online=is_online))
    typing = presence_service_pb2.SetChatPresenceRequest
    for activity in (typing.ACTIVITY_TYPING, typing.ACTIVITY_RECORDING, typing.ACTIVITY_PAUSED):
        await anna.presences.SetChatPresence(typing(**session, chat=friend, activity=activity))
    await anna.presences.Subscribe(presence_service_pb2.SubscribeRequest(**session, person=friend))
    reject = call_service_pb2.RejectRequest(**session, call_id="C1", caller=f"{friend}@s.whatsapp.net")
    await anna.calls.Reject(reject)
    # The process has survived all of them.
    assert (await shared_node.status(anna.session_id)).owner.epoch == 1


async def test_an_account_without_a_name_cannot_show_its_presence(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    anna = await paired(shared_node, simulator, "")
    request = presence_service_pb2.SetPresenceRequest(session_id=anna.session_id, is_online=True)
    refused = (grpc.StatusCode.FAILED_PRECONDITION, "NAME_NOT_SET")
    assert await reason_of(anna.presences.SetPresence(request)) == refused


async def test_a_silent_whatsapp_is_an_unknown_outcome(
    shared_node: ServiceProcess, simulator: SimulatorControl
) -> None:
    anna = await paired(shared_node, simulator)
    await simulator.hold_queries("usync")
    request = contact_pb2.CheckNumbersRequest(session_id=anna.session_id, numbers=[UNUSED_NUMBER])
    asked = anna.contacts.CheckNumbers(request, timeout=3)
    assert await reason_of(asked) == (grpc.StatusCode.DEADLINE_EXCEEDED, "WHATSAPP_SILENT")
    await simulator.release_queries()

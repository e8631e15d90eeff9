"""What one account shows and another one sees: two sessions of one node, through the simulated WhatsApp."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.eventually import eventually
from tests.pictures import jpeg
from tests.service_process import ServiceProcess, error_info
from zap.v1 import contact_pb2, profile_pb2
from zap.v1.contact_pb2_grpc import ContactServiceStub
from zap.v1.profile_pb2_grpc import ProfileServiceStub

if TYPE_CHECKING:
    from zap.v1.contact_pb2_grpc import ContactServiceAsyncStub
    from zap.v1.profile_pb2_grpc import ProfileServiceAsyncStub

Setting = profile_pb2.SetPrivacyRequest


@dataclass(frozen=True)
class Person:
    """A session, and whose it is."""

    session_id: str
    phone: str
    node: ServiceProcess

    @property
    def contacts(self) -> "ContactServiceAsyncStub":
        return ContactServiceStub(self.node.channel)

    @property
    def profiles(self) -> "ProfileServiceAsyncStub":
        return ProfileServiceStub(self.node.channel)

    async def profile(self) -> profile_pb2.Profile:
        return await self.profiles.Get(profile_pb2.GetProfileRequest(session_id=self.session_id))

    async def about_of(self, other: "Person") -> contact_pb2.About:
        request = contact_pb2.GetAboutRequest(session_id=self.session_id, person=other.phone)
        return await self.contacts.GetAbout(request)

    async def picture_of(self, other: "Person", known: str = "") -> contact_pb2.Picture:
        request = contact_pb2.GetPictureRequest(session_id=self.session_id, whose=other.phone, known_picture_id=known)
        return await self.contacts.GetPicture(request)

    async def blocked(self) -> list[str]:
        """The phones of the people whom it has blocked."""
        found = await self.contacts.ListBlocked(contact_pb2.ListBlockedRequest(session_id=self.session_id))
        return [address.phone for address in found.addresses]

    async def hide(self, setting: "Setting.Setting.ValueType") -> None:
        """Show no person what a privacy setting covers."""
        audience = profile_pb2.PRIVACY_AUDIENCE_NONE
        request = profile_pb2.SetPrivacyRequest(session_id=self.session_id, setting=setting, audience=audience)
        await self.profiles.SetPrivacy(request)


async def person(node: ServiceProcess, simulator: SimulatorControl, name: str) -> Person:
    """A connected session, whose process has learned the account's name from the phone."""
    phone = await new_phone(simulator, name)
    session_id = f"s{phone}"
    await pair(node, simulator, session_id, phone)

    async def has_name() -> bool:
        return (await node.status(session_id)).account.push_name == name

    await eventually(has_name, "the account's name")
    return Person(session_id, phone, node)


@pytest.fixture
async def anna(shared_node: ServiceProcess, simulator: SimulatorControl) -> Person:
    return await person(shared_node, simulator, "Anna")


@pytest.fixture
async def bob(shared_node: ServiceProcess, simulator: SimulatorControl) -> Person:
    return await person(shared_node, simulator, "Bob")


async def reason_of(call: Awaitable[object]) -> str:
    """The reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return str(error_info(error.value).reason)


async def test_what_is_set_as_about_is_seen_unless_it_is_hidden(anna: Person, bob: Person) -> None:
    await bob.profiles.SetAbout(profile_pb2.SetAboutRequest(session_id=bob.session_id, about="Büsy"))
    assert (await bob.profile()).about == "Büsy"
    seen = await anna.about_of(bob)
    assert (seen.text, seen.address.phone) == ("Büsy", f"+{bob.phone}")
    await bob.hide(Setting.SETTING_ABOUT)
    assert (await anna.about_of(bob)).text == ""


async def test_a_picture_that_is_set_is_seen_unless_it_is_hidden(anna: Person, bob: Person) -> None:
    assert await reason_of(anna.picture_of(bob)) == "PICTURE_NOT_FOUND"
    request = profile_pb2.SetPictureRequest(session_id=bob.session_id, jpeg=jpeg(640, 640))
    picture_id = (await bob.profiles.SetPicture(request)).picture_id
    assert picture_id == (await bob.profile()).picture_id == (await anna.about_of(bob)).picture_id
    seen = await anna.picture_of(bob)
    assert (seen.picture_id, seen.is_unchanged) == (picture_id, False)
    assert seen.url.startswith("https://")
    # The library would ignore the id of the known picture unless all parameters were set.
    unchanged = await anna.picture_of(bob, known=picture_id)
    assert (unchanged.picture_id, unchanged.is_unchanged, unchanged.url) == (picture_id, True, "")
    assert not (await anna.picture_of(bob, known="1")).is_unchanged
    await bob.hide(Setting.SETTING_PICTURE)
    assert await reason_of(anna.picture_of(bob)) == "PICTURE_HIDDEN"


async def test_a_person_is_blocked_and_unblocked_however_often(anna: Person, bob: Person) -> None:
    assert await anna.blocked() == []
    block = contact_pb2.BlockRequest(session_id=anna.session_id, person=bob.phone)
    for _ in range(2):
        await anna.contacts.Block(block)
        assert await anna.blocked() == [f"+{bob.phone}"]
    lid = (await anna.contacts.Block(block)).address.lid
    for who in (lid, bob.phone):
        await anna.contacts.Unblock(contact_pb2.UnblockRequest(session_id=anna.session_id, person=who))
        assert await anna.blocked() == []


async def test_a_name_that_is_set_is_the_account_s(anna: Person) -> None:
    await anna.profiles.SetName(profile_pb2.SetNameRequest(session_id=anna.session_id, name="Änne"))

    async def is_known() -> bool:
        return (await anna.node.status(anna.session_id)).account.push_name == "Änne"

    await eventually(is_known, "the new name")
    assert (await anna.profile()).push_name == "Änne"


async def test_a_business_has_a_verified_name(anna: Person, bob: Person, simulator: SimulatorControl) -> None:
    await simulator.person(bob.phone).set_business_name("Bob Ltd")
    request = contact_pb2.CheckNumbersRequest(session_id=anna.session_id, numbers=[bob.phone])
    (check,) = (await anna.contacts.CheckNumbers(request)).checks
    assert check.business_name == "Bob Ltd"
    # The library learns the name for its contacts, and does not return it.
    await anna.about_of(bob)
    known = contact_pb2.GetContactRequest(session_id=anna.session_id, person=bob.phone)
    assert (await anna.contacts.Get(known)).business_name == "Bob Ltd"

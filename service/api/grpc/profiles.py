"""Serves zap.v1.ProfileService: parses requests, asks the process of the session, converts results."""

from google.protobuf.empty_pb2 import Empty

from service.api.grpc.context import Context
from service.api.grpc.process_requests import ask
from service.domain.contacts import person_address
from service.protocol.contacts import address_message, check_picture, check_privacy
from service.sessions.process_calls import ProcessCalls
from zap.v1 import profile_pb2 as pb
from zap.v1.profile_pb2_grpc import ProfileServiceServicer
from zap.worker.v1 import contacts_pb2

NAME = pb.DESCRIPTOR.services_by_name["ProfileService"].full_name


class ProfileServicer(ProfileServiceServicer):
    """Translates between the proto and the requests of the session's process."""

    def __init__(self, calls: ProcessCalls) -> None:
        self._calls = calls

    async def Get(self, request: pb.GetProfileRequest, context: Context) -> pb.Profile:
        asked = contacts_pb2.GetOwnProfile()
        own = await ask(self._calls, context, request.session_id, asked, contacts_pb2.OwnProfile)
        address = person_address(own.jid.partition("@")[0], own.lid.partition("@")[0])
        return pb.Profile(
            address=address_message(address),
            push_name=own.push_name,
            about=own.info.about,
            picture_id=own.info.picture_id,
        )

    async def SetName(self, request: pb.SetNameRequest, context: Context) -> pb.SetNameResponse:
        await ask(self._calls, context, request.session_id, contacts_pb2.SetProfileName(name=request.name), Empty)
        return pb.SetNameResponse()

    async def SetAbout(self, request: pb.SetAboutRequest, context: Context) -> pb.SetAboutResponse:
        await ask(self._calls, context, request.session_id, contacts_pb2.SetProfileAbout(about=request.about), Empty)
        return pb.SetAboutResponse()

    async def SetPicture(self, request: pb.SetPictureRequest, context: Context) -> pb.SetPictureResponse:
        check_picture(request.jpeg)
        asked = contacts_pb2.SetProfilePicture(jpeg=request.jpeg)
        found = await ask(self._calls, context, request.session_id, asked, contacts_pb2.FoundPicture)
        return pb.SetPictureResponse(picture_id=found.picture_id)

    async def GetPrivacy(self, request: pb.GetPrivacyRequest, context: Context) -> pb.PrivacySettings:
        return await ask(self._calls, context, request.session_id, contacts_pb2.GetPrivacy(), pb.PrivacySettings)

    async def SetPrivacy(self, request: pb.SetPrivacyRequest, context: Context) -> pb.PrivacySettings:
        check_privacy(request)
        asked = contacts_pb2.SetPrivacy(setting=request.setting, audience=request.audience)
        return await ask(self._calls, context, request.session_id, asked, pb.PrivacySettings)

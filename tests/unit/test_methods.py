"""Every RPC states its rules in the protos, and the service follows them."""

from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from service.protocol.methods import FREQUENT_METHODS, METHOD_RULES, OWNER_METHODS, REPEATABLE_METHODS, rules_in
from zap.v1 import options_pb2

SENDS = {f"zap.v1.MessageService/{name}" for name in ("Send", "Edit", "Revoke", "PinInChat")}
GENERATED = Path(__file__).resolve().parents[2] / "generated"


def files() -> list[FileDescriptor]:
    """Return the protos of what callers and other nodes call."""
    modules = [f"zap.{package}.{path.stem}" for package in ("v1", "node.v1") for path in folder(package)]
    return [import_module(module).DESCRIPTOR for module in modules]


def folder(package: str) -> list[Path]:
    return sorted((GENERATED / "zap" / package.replace(".", "/")).glob("*_pb2.py"))


def test_every_method_of_every_proto_has_its_rules() -> None:
    methods = {
        f"{service.full_name}/{method.name}"
        for file in files()
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert len(methods) >= 16
    assert set(METHOD_RULES) == methods


def test_the_session_s_process_carries_these_out() -> None:
    assert {
        *SENDS,
        "zap.v1.MessageService/MarkRead",
        "zap.v1.CallService/Reject",
        "zap.v1.ContactService/Block",
        "zap.v1.ContactService/CheckNumbers",
        "zap.v1.ContactService/GetAbout",
        "zap.v1.ContactService/GetPicture",
        "zap.v1.ContactService/ListBlocked",
        "zap.v1.ContactService/Unblock",
        "zap.v1.GroupService/Create",
        "zap.v1.GroupService/Get",
        "zap.v1.GroupService/GetInviteLink",
        "zap.v1.GroupService/Join",
        "zap.v1.GroupService/Leave",
        "zap.v1.GroupService/LinkGroup",
        "zap.v1.GroupService/List",
        "zap.v1.GroupService/ListJoinRequests",
        "zap.v1.GroupService/ListSubGroups",
        "zap.v1.GroupService/PreviewInvite",
        "zap.v1.GroupService/ResetInviteLink",
        "zap.v1.GroupService/SetPicture",
        "zap.v1.GroupService/UnlinkGroup",
        "zap.v1.GroupService/Update",
        "zap.v1.GroupService/UpdateParticipants",
        "zap.v1.MediaService/Upload",
        "zap.v1.PresenceService/SetChatPresence",
        "zap.v1.PresenceService/SetPresence",
        "zap.v1.PresenceService/Subscribe",
        "zap.v1.ProfileService/Get",
        "zap.v1.ProfileService/GetPrivacy",
        "zap.v1.ProfileService/SetAbout",
        "zap.v1.ProfileService/SetName",
        "zap.v1.ProfileService/SetPicture",
        "zap.v1.ProfileService/SetPrivacy",
        "zap.v1.SessionService/Logout",
        "zap.v1.SessionService/RequestPairingCode",
        "zap.v1.SessionService/Restart",
    } == OWNER_METHODS


def test_of_these_others_are_not_repeated_at_another_owner() -> None:
    assert {
        "zap.v1.GroupService/Create",
        "zap.v1.GroupService/Join",
        "zap.v1.GroupService/Leave",
        "zap.v1.GroupService/LinkGroup",
        "zap.v1.GroupService/ResetInviteLink",
        "zap.v1.GroupService/SetPicture",
        "zap.v1.GroupService/UnlinkGroup",
        "zap.v1.GroupService/UpdateParticipants",
        "zap.v1.MediaService/Upload",
        "zap.v1.ProfileService/SetPicture",
        "zap.v1.SessionService/Logout",
        "zap.v1.SessionService/RequestPairingCode",
        "zap.v1.SessionService/Restart",
    } == OWNER_METHODS - REPEATABLE_METHODS


def test_frequent_methods_only_read() -> None:
    assert {
        "zap.v1.ContactService/Get",
        "zap.v1.ContactService/List",
        "zap.v1.ContactService/ResolveLid",
        "zap.v1.EventService/Watch",
        "zap.v1.MessageService/Get",
        "zap.v1.MessageService/List",
        "zap.v1.SessionService/List",
        "zap.v1.SessionService/Status",
    } == FREQUENT_METHODS
    assert {METHOD_RULES[method].effect for method in FREQUENT_METHODS} == {options_pb2.EFFECT_READS}


@pytest.mark.parametrize("stated", [None, options_pb2.MethodRules(needs_owner=True)])
def test_a_method_without_a_stated_effect_is_refused(stated: options_pb2.MethodRules | None) -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="test/forgotten.proto", package="test", dependency=["zap/v1/options.proto"]
    )
    file.message_type.add(name="Request")
    method = file.service.add(name="Service").method.add(
        name="Forgotten", input_type=".test.Request", output_type=".test.Request"
    )
    if stated is not None:
        method.options.Extensions[options_pb2.rules].CopyFrom(stated)
    pool = descriptor_pool.DescriptorPool()
    for needed in (descriptor_pb2.DESCRIPTOR, options_pb2.DESCRIPTOR):
        pool.AddSerializedFile(needed.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    with pytest.raises(ValueError, match=r"test\.Service\.Forgotten in test/forgotten\.proto states no effect"):
        list(rules_in(pool.FindFileByName(file.name)))

"""The details of an error, as a caller reads them."""

from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

M = TypeVar("M", bound=Message)


def all_details(error: grpc.RpcError) -> list[Any]:
    """What comes with an error, packed."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    assert status is not None, f"no google.rpc.Status with {error}"
    assert status.code == error.code().value[0]
    return list(status.details)


def detail(error: grpc.RpcError, kind: type[M]) -> M:
    """The one detail of a kind."""
    found = [packed for packed in all_details(error) if packed.Is(kind.DESCRIPTOR)]
    assert len(found) == 1, f"{len(found)} details of {kind.DESCRIPTOR.full_name}"
    message = kind()
    found[0].Unpack(message)
    return message


def error_info(error: grpc.RpcError) -> Any:
    """Which error it is, for programs."""
    return detail(error, details.ErrorInfo)

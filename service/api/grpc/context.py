"""The context of a call: grpc.aio's, under aliases since its types are generic in stubs only, and with the caller."""

from typing import TYPE_CHECKING, Any

import grpc

from service.domain.caller import Caller

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler


class AdmittedContext:
    """Adds the caller to gRPC's context. Servicers take it in place of gRPC's, whose class allows no new attribute."""

    def __init__(self, context: Context, caller: Caller) -> None:
        self._context = context
        self.caller = caller

    def __getattr__(self, name: str) -> Any:
        """Return what gRPC's context has."""
        return getattr(self._context, name)


def caller_of(context: object) -> Caller:
    """Return the caller of a call that was admitted."""
    if not isinstance(context, AdmittedContext):
        raise TypeError("the call was not admitted by CallInterceptor")
    return context.caller

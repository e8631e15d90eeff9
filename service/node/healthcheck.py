"""`python -m service.node.healthcheck`: exit with 0 if the node of this machine serves, else with 1.

It imports next to nothing: it is run every few seconds.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2

from service.domain.addresses import is_anywhere, split_address

METHOD = "/grpc.health.v1.Health/Check"
SECONDS = 3.0


def target(listen: str) -> str:
    """Where to reach, from this machine, a server that listens on this address."""
    _, port = split_address(listen)
    return f"127.0.0.1:{port}" if is_anywhere(listen) else listen


def is_serving(address: str) -> bool:
    """Whether the server there says that it serves; any failure to say so is a no."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"{address}: {error.code().name}\n")
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_serving(target(os.environ.get("ZAP_LISTEN") or "127.0.0.1:50051")) else 1)

"""`python -m service.node.healthcheck`: exits with 0 if the node on this machine serves, else with 1.

It imports little because it runs every few seconds.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2

from service.domain.addresses import is_anywhere, split_address

HEALTH_CHECK_METHOD = "/grpc.health.v1.Health/Check"
CALL_TIMEOUT_S = 3.0


def target(listen: str) -> str:
    """Return the address at which this machine reaches a server that listens on `listen`."""
    _, port = split_address(listen)
    return f"127.0.0.1:{port}" if is_anywhere(listen) else listen


def is_serving(address: str) -> bool:
    """Return whether the server at `address` reports SERVING; False if the call fails."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            HEALTH_CHECK_METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            sys.stderr.write(f"{address}: {error.code().name}\n")
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_serving(target(os.environ.get("ZAP_LISTEN") or "127.0.0.1:50051")) else 1)

"""Callers who send one message after the other, and what they are told."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2 as details

from tests.e2e.cluster import Cluster
from tests.rpc.statuses import detail
from tests.service_process import ServiceProcess


@dataclass
class Told:
    """What became of all that was asked for."""

    number: int = 0
    sent: list[str] = field(default_factory=list)
    """Ids of messages that were said to be sent."""
    refused: Counter[str] = field(default_factory=Counter)
    """Refusals that a caller can live with, by reason: UNAVAILABLE, and when to try again."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Any other."""


Asked = ServiceProcess | Callable[[], ServiceProcess]
"""A node that goes on, or one for each attempt that may be killed in the middle of it."""


async def send_all_the_time(there: Cluster, asked: Asked, told: Told) -> None:
    """To one session after the other, until this is cancelled; what is refused is tried again under its request_id."""
    while True:
        told.number += 1
        session_id = there.sessions[told.number % len(there.sessions)]
        while not await _send(there, session_id, asked, told):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.02)


async def _send(there: Cluster, session_id: str, asked: Asked, told: Told) -> bool:
    """Send by one node; return whether it took the text."""
    node, may_die = (asked, False) if isinstance(asked, ServiceProcess) else (asked(), True)
    try:
        # wait_for may swallow a cancellation that comes with the answer (Python before 3.12).
        async with asyncio.timeout(30):
            message = await node.send(session_id, f"+{there.friend}", f"answer {told.number}", f"request-{told.number}")
    except grpc.aio.AioRpcError as error:
        if may_die and error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            told.refused[error.code().name] += 1
        else:
            _note(told, error)
        return False
    except asyncio.CancelledError:
        # So does gRPC end calls whose channel is closed, as ours are when a node is killed.
        if not may_die or (task := asyncio.current_task()) is None or task.cancelling():
            raise
        told.refused["CANCELLED"] += 1
        return False
    if message.message_id or not may_die:
        told.sent.append(message.message_id)
    return True


def _note(told: Told, error: grpc.aio.AioRpcError) -> None:
    try:
        reason = str(detail(error, details.ErrorInfo).reason)
        detail(error, details.RetryInfo)
    except AssertionError as missing:
        told.wrong[f"{error.code().name}, {missing}"] += 1
        return
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        told.refused[reason] += 1
    else:
        told.wrong[f"{error.code().name} {reason}"] += 1


async def assert_arrived_once(there: Cluster, told: Told) -> None:
    """Whatever was said to be sent has arrived, once."""
    inbox = [message.id for message in await there.simulator.inbox(there.friend)]
    missing = set(told.sent) - set(inbox)
    assert not missing, f"{len(missing)} messages that were said to be sent have not arrived"
    assert len(inbox) == len(set(inbox)), "a message arrived twice"

"""Callers who send one message after the other, and what they are told."""

import asyncio
from collections import Counter
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


async def send_all_the_time(there: Cluster, asked: ServiceProcess, told: Told) -> None:
    """To one session after the other, until this is cancelled; what is refused is tried again under its request_id."""
    while True:
        told.number += 1
        session_id = there.sessions[told.number % len(there.sessions)]
        while True:
            try:
                message = await asked.send(
                    session_id, f"+{there.friend}", f"answer {told.number}", f"request-{told.number}"
                )
            except grpc.aio.AioRpcError as error:
                _note(told, error)
                await asyncio.sleep(0.05)
            else:
                told.sent.append(message.message_id)
                break
        await asyncio.sleep(0.02)


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
    assert set(told.sent) <= set(inbox)
    assert len(inbox) == len(set(inbox))

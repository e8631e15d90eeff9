"""What the tests of the contract need: a channel. They hold for any server of zap.v1.

With ZAP_TEST_ADDRESS (and ZAP_AUTH_TOKEN) in the environment, the ones that need no fake run against that server.
"""

import os
from collections.abc import Iterator

import grpc
import pytest

from tests.fakes.serving import FakeService


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


@pytest.fixture(scope="module")
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    address = os.environ.get("ZAP_TEST_ADDRESS") or request.getfixturevalue("fake").address
    with grpc.insecure_channel(address) as channel:
        yield channel

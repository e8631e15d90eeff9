"""What a node is called: as it was told, or by the way to its database."""

import socket

import pytest

from service.api.grpc.advertised_address import AdvertisedAddress


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("10.0.0.1:2", "10.0.0.1:2"),
        ("10.0.0.1:0", "10.0.0.1:7"),
        ("node-1.nodes:0", "node-1.nodes:7"),
        ("[::1]:2", "[::1]:2"),
        ("[fe80::1]:0", "[fe80::1]:7"),
    ],
)
def test_what_was_set_is_what_it_is_called(called: str, expected: str) -> None:
    # Nobody looks for this database.
    own = AdvertisedAddress(called, 7, database_hosts=["nowhere.invalid"])
    assert (str(own), own.is_of_this_machine_alone) == (expected, False)


@pytest.mark.parametrize("database_host", ["127.0.0.1", "localhost", "/run/postgresql", "@abstract"])
def test_beside_its_database_it_is_called_on_this_machine_alone(database_host: str) -> None:
    own = AdvertisedAddress("0.0.0.0:0", 7, database_hosts=[database_host])
    assert str(own) == "127.0.0.1:7"
    assert own.is_of_this_machine_alone


def test_a_node_that_listens_everywhere_is_called_where_it_goes_to_its_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways = {"": "10.0.0.5"}

    class Way(socket.socket):
        """The kernel's table of routes, which a test cannot change."""

        def connect(self, address: object) -> None:
            if not ways:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return ways[""], 0

    monkeypatch.setattr(socket, "socket", Way)
    own = AdvertisedAddress("0.0.0.0:7946", 7946, database_hosts=["nowhere.invalid", "192.0.2.1"])
    assert (str(own), own.is_of_this_machine_alone) == ("10.0.0.5:7946", False)
    ways.clear()
    assert str(own) == "10.0.0.5:7946"
    ways[""] = "10.0.0.6"
    assert str(own) == "10.0.0.6:7946"


def test_a_node_that_listens_for_ipv4_is_not_called_by_ipv6() -> None:
    own = AdvertisedAddress("0.0.0.0:0", 7, database_hosts=["::1"])
    assert (str(own), own.is_of_this_machine_alone) == ("127.0.0.1:7", True)


def test_a_server_that_has_no_name_now_does_not_keep_the_node_from_starting() -> None:
    own = AdvertisedAddress("[::]:0", 7, database_hosts=["nowhere.invalid"])
    assert (str(own), own.is_of_this_machine_alone) == ("127.0.0.1:7", True)

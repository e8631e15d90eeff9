"""What a callback asks the library's map of numbers and LIDs."""

from typing import Any

import pytest
from neonize.exc import GetJIDFromStoreError
from neonize.proto import Neonize_pb2 as neonize

from service.pgrelay.ack_gate import AckGate
from service.worker.addresses import from_text
from service.worker.session.client import Callbacks, Client
from zap.worker.v1 import frames_pb2

NUMBER, LID = from_text("49171@s.whatsapp.net"), from_text("222@lid")


class Map:
    """Stands in for neonize's client."""

    def __init__(self, answer: neonize.JID | Exception) -> None:
        self.answer = answer
        self.client: Client

    def get_lid_from_pn(self, number: neonize.JID) -> neonize.JID:
        assert number == NUMBER
        # The process is not taken for stuck meanwhile: the relay watches the database.
        assert self.client.is_asking_store
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "lid"), [(LID, LID), (neonize.JID(), neonize.JID()), (GetJIDFromStoreError("no"), neonize.JID())]
)
def test_the_library_is_asked_for_a_lid(monkeypatch: pytest.MonkeyPatch, answer: Any, lid: neonize.JID) -> None:
    def nothing(*_: Any) -> None: ...

    callbacks = Callbacks(nothing, nothing, nothing, nothing)
    client, of_library = Client(frames_pb2.Start(), "", AckGate(nothing), callbacks), Map(answer)
    of_library.client = client
    monkeypatch.setattr(client, "_client", of_library)
    assert client.lid_of(NUMBER) == lid
    assert not client.is_asking_store

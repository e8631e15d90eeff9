"""Defines the commands `zapctl contacts …`."""

from typing import Annotated

import typer

from service.cli import views
from service.cli.connection import ServerConnection
from zap.v1 import address_pb2, contact_pb2

app = typer.Typer(help="The people that a session knows.", no_args_is_help=True)

_SessionId = Annotated[str, typer.Argument(help="Which session.", show_default=False)]


@app.command()
def check(
    context: typer.Context,
    session_id: _SessionId,
    numbers: Annotated[list[str], typer.Argument(help="Phone numbers with country code.", show_default=False)],
) -> None:
    """Check which numbers are on WhatsApp."""
    server: ServerConnection = context.obj
    with server.contacts() as contacts:
        request = contact_pb2.CheckNumbersRequest(session_id=session_id, numbers=numbers)
        found = list(server.call(contacts.CheckNumbers, request).checks)
    views.print_rows(found, ("NUMBER", "RESULT", "PHONE", "LID", "BUSINESS"), _check_row, as_json=server.as_json)


@app.command(name="list")
def list_contacts(
    context: typer.Context,
    session_id: _SessionId,
    search: Annotated[str, typer.Option(help="Only with this text in a name or the phone number.")] = "",
    *,
    is_saved: Annotated[bool, typer.Option("--saved", help="Only people in the account's address book.")] = False,
) -> None:
    """List all people whom a session knows by name."""
    server: ServerConnection = context.obj
    request = contact_pb2.ListContactsRequest(session_id=session_id, page_size=1000, search=search, is_saved=is_saved)
    found: list[contact_pb2.Contact] = []
    with server.contacts() as contacts:
        while True:
            response = server.call(contacts.List, request)
            found += response.contacts
            request.page_token = response.next_page_token
            if not request.page_token:
                break
    views.print_rows(found, _CONTACT_COLUMNS, _contact_row, as_json=server.as_json)


@app.command()
def get(
    context: typer.Context,
    session_id: _SessionId,
    person: Annotated[str, typer.Argument(help="A phone number with country code, or a JID.", show_default=False)],
) -> None:
    """Show a person whom a session knows by name."""
    server: ServerConnection = context.obj
    with server.contacts() as contacts:
        found = server.call(contacts.Get, contact_pb2.GetContactRequest(session_id=session_id, person=person))
    views.print_rows([found], _CONTACT_COLUMNS, _contact_row, as_json=server.as_json)


_CONTACT_COLUMNS = ("PHONE", "LID", "NAME", "PUSH NAME", "BUSINESS")


def _check_row(check: contact_pb2.NumberCheck) -> tuple[str, ...]:
    result = views.word_of(contact_pb2.NumberCheck.Result, check.result, "RESULT_")
    return (check.number, result, *_addresses(check.address), check.business_name)


def _contact_row(contact: contact_pb2.Contact) -> tuple[str, ...]:
    name = contact.full_name or contact.first_name
    return (*_addresses(contact.address), name, contact.push_name, contact.business_name)


def _addresses(address: address_pb2.Address) -> tuple[str, str]:
    return (address.phone, address.lid)

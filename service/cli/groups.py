"""Defines the commands `zapctl groups …`."""

from typing import Annotated

import typer

from service.cli import views
from service.cli.connection import ServerConnection
from zap.v1 import group_service_pb2 as pb

app = typer.Typer(help="The groups that a session is a member of.", no_args_is_help=True)

_SessionId = Annotated[str, typer.Argument(help="Which session.", show_default=False)]
_Group = Annotated[str, typer.Argument(help="The JID of the group (@g.us).", show_default=False)]
_Invite = Annotated[str, typer.Argument(help="An invite link, or its code.", show_default=False)]


@app.command(name="list")
def list_groups(context: typer.Context, session_id: _SessionId) -> None:
    """List all groups and communities, without their members."""
    server: ServerConnection = context.obj
    request = pb.ListGroupsRequest(session_id=session_id, page_size=1000)
    found: list[pb.Group] = []
    with server.groups() as groups:
        while True:
            response = server.call(groups.List, request)
            found += response.groups
            request.page_token = response.next_page_token
            if not request.page_token:
                break
    views.print_rows(found, ("GROUP", "MEMBERS", "KIND", "NAME"), _group_row, as_json=server.as_json)


@app.command()
def get(context: typer.Context, session_id: _SessionId, group: _Group) -> None:
    """List the members of a group; with --json, show the group."""
    server: ServerConnection = context.obj
    with server.groups() as groups:
        found = server.call(groups.Get, pb.GetGroupRequest(session_id=session_id, group=group))
    if server.as_json:
        views.print_json(found)
    else:
        views.print_rows(found.participants, ("PHONE", "LID", "ROLE"), _participant_row, as_json=False)


@app.command()
def create(
    context: typer.Context,
    session_id: _SessionId,
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    people: Annotated[
        list[str] | None, typer.Argument(help="The first members: numbers or JIDs.", show_default=False)
    ] = None,
    *,
    is_community: Annotated[bool, typer.Option("--community", help="Create a community.")] = False,
) -> None:
    """Create a group, print its JID, and what became of each person."""
    server: ServerConnection = context.obj
    request = pb.CreateGroupRequest(
        session_id=session_id,
        settings=pb.GroupSettings(name=name),
        participants=people or (),
        is_community=is_community,
    )
    with server.groups() as groups:
        created = server.call(groups.Create, request)
    if server.as_json:
        views.print_json(created)
        return
    print(created.group.jid)
    if created.results:
        views.print_rows(created.results, ("PERSON", "RESULT", "CODE"), _result_row, as_json=False)


@app.command()
def invite(
    context: typer.Context,
    session_id: _SessionId,
    group: _Group,
    *,
    is_reset: Annotated[bool, typer.Option("--reset", help="Make a new link; the previous one is invalid.")] = False,
) -> None:
    """Print the invite link of a group."""
    server: ServerConnection = context.obj
    with server.groups() as groups:
        if is_reset:
            found = server.call(groups.ResetInviteLink, pb.ResetInviteLinkRequest(session_id=session_id, group=group))
        else:
            found = server.call(groups.GetInviteLink, pb.GetInviteLinkRequest(session_id=session_id, group=group))
    if server.as_json:
        views.print_json(found)
    else:
        print(found.link)


@app.command()
def join(context: typer.Context, session_id: _SessionId, invite: _Invite) -> None:
    """Join a group by its invite link."""
    server: ServerConnection = context.obj
    with server.groups() as groups:
        joined = server.call(groups.Join, pb.JoinGroupRequest(session_id=session_id, invite=invite))
    views.print_rows([joined], ("GROUP", "STATE"), _join_row, as_json=server.as_json)


@app.command()
def leave(context: typer.Context, session_id: _SessionId, group: _Group) -> None:
    """Leave a group."""
    server: ServerConnection = context.obj
    with server.groups() as groups:
        server.call(groups.Leave, pb.LeaveGroupRequest(session_id=session_id, group=group))


def _group_row(group: pb.Group) -> tuple[str, ...]:
    kind = "community" if group.is_community else "group"
    return (group.jid, str(group.participant_count), kind, group.settings.name)


def _participant_row(participant: pb.GroupParticipant) -> tuple[str, ...]:
    role = "creator" if participant.is_creator else "admin" if participant.is_admin else "member"
    return (participant.address.phone, participant.address.lid, role)


def _result_row(result: pb.ParticipantResult) -> tuple[str, ...]:
    word = views.word_of(pb.ParticipantResult.Result, result.result, "RESULT_")
    return (result.participant, word, str(result.code or ""))


def _join_row(joined: pb.JoinGroupResponse) -> tuple[str, ...]:
    return (joined.group, views.word_of(pb.JoinGroupResponse.State, joined.state, "STATE_"))

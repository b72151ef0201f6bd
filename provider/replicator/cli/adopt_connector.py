"""`replicator adopt`: take over a connector that was created manually, as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.cli.options import AddressOption, JsonOption, StackOption, ask, need_terminal, parse_backend
from replicator.cli.output import say, say_json, sentence, showing
from replicator.cli.streams import engine_of
from replicator.cli.where import Where
from replicator.errors import EngineRefused, ReplicatorError

if TYPE_CHECKING:
    from replicator.replicator import Proposal


def _end(of: str) -> Any:
    return typer.Option(help=of, metavar="URI", show_default="what its configuration says")


def _login(end: str) -> Any:
    return typer.Option(
        help=f"The login of the provider's own connections to the {end}, such as env://PG_*. The connector keeps its "
        "login.",
        metavar="REF",
        show_default="none",
    )


def _region(end: str) -> Any:
    return typer.Option(help=f"The region of the {end}.", metavar="WORD", show_default="none")


def adopt_connector(
    name: Annotated[str, typer.Argument(help="The connector's name.", metavar="NAME")],
    source: Annotated[str | None, _end("Where it reads.")] = None,
    source_auth_ref: Annotated[str | None, _login("source")] = None,
    source_admin_auth_ref: Annotated[
        str | None,
        typer.Option(
            help="The login of a role that may change the source, if that is another one.",
            metavar="REF",
            show_default="none",
        ),
    ] = None,
    source_region: Annotated[str | None, _region("source")] = None,
    destination: Annotated[str | None, _end("Where it writes.")] = None,
    destination_auth_ref: Annotated[str | None, _login("destination")] = None,
    destination_region: Annotated[str | None, _region("destination")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    backend: Annotated[
        str, typer.Option("--backend", help="The backend of the connector.", parser=parse_backend, metavar="NAME")
    ] = "debezium",
    address: AddressOption = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over a connector of Debezium or MirrorMaker 2 that you created yourself.

    It shows a plan and asks. Then the connector is a stream that no resource manages; `replicator import` takes it into
    Pulumi. Its offsets, replication slot, publication and topics stay. So does every setting that a stream cannot
    express, such as a login: the value stays in the connector, and is not shown.

    For databases that litestream replicates, see `replicator agent adopt`.
    """
    from replicator.lifecycle.connections import StreamId
    from replicator.replicator import EndHints

    if not dry_run and not yes:
        need_terminal()
    reads = EndHints(uri=source, region=source_region, auth_ref=source_auth_ref, admin_auth_ref=source_admin_auth_ref)
    writes = EndHints(uri=destination, region=destination_region, auth_ref=destination_auth_ref)
    known = False
    where = Where(backend, address, stack, changes=not dry_run)
    with _as_options(), engine_of(where, StreamId(backend, "default", name)) as one:
        client = one.client
        found = one.run(client.propose(name, reads, writes))
        if not as_json:
            _show(found)
        if not dry_run:
            if not yes:
                ask("Do it?")
            _refuse_other_plan(found, one.run(client.propose(name, reads, writes)))
            with showing(f"taking over {name}"):
                known = one.run(client.adopt_stream(found.stream)).known
    if as_json:
        say_json(found.model_dump(mode="json"))
    elif not dry_run:
        say(f"{name} is a stream already" if known else f"took over {name}")
        say(f"  → {where.hint('replicator import')}   # writes the program that manages it")


_OPTIONS = {
    "source.uri": "--source",
    "source.authRef": "--source-auth-ref",
    "source.adminAuthRef": "--source-admin-auth-ref",
    "source.region": "--source-region",
    "destination.uri": "--destination",
    "destination.authRef": "--destination-auth-ref",
    "destination.region": "--destination-region",
}


@contextmanager
def _as_options() -> Iterator[None]:
    """Name the option of this command in errors, instead of the property that it gives."""
    try:
        yield
    except ReplicatorError as error:
        error.property = _OPTIONS.get(error.property or "", error.property)
        raise


def _refuse_other_plan(before: Proposal, now: Proposal) -> None:
    if before != now:
        raise EngineRefused(
            "the connector, or what it reads, has changed since the plan was shown",
            stream=before.stream.name,
            fix="run the command again",
        )


def _show(found: Proposal) -> None:
    import yaml

    from replicator.lifecycle.resource import declared

    say(yaml.safe_dump({found.stream.name: declared(found.stream)}, sort_keys=False, allow_unicode=True).rstrip())
    for text in found.effects:
        say(f"  {sentence(text)}")
    for item in found.findings:
        say(f"{item.severity}: {item.property}: {item.message}")
    if found.kept:
        say(f"These settings stay as they are, and the declaration does not say them: {', '.join(found.kept)}.")

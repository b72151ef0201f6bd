"""`replicator doctor`: find what is wrong with an installation, and say what to type."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import AddressOption, JsonOption
from replicator.cli.output import say, say_json

if TYPE_CHECKING:
    from replicator.cli.doctor.look import Look


def doctor(
    address: AddressOption = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="The state folder of this host's agent.",
            metavar="DIR",
            show_default="what the agent says, else its default",
        ),
    ] = None,
    project: Annotated[
        Path, typer.Option("--project", help="The folder of the Pulumi project.", metavar="DIR", show_default="here")
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong, and say what to type.

    It looks at Pulumi, the plugin, litestream, the agent, its socket and its state folder, and changes nothing. The
    exit code is 0 where all is well, and 1 where something is not.
    """
    looks = _look(address, state, project.absolute())
    if as_json:
        say_json([_plain(look) for look in looks])
    else:
        for look in looks:
            say(f"{_verdict(look):7}  {look.about:10}  {look.found}")
            for line in (look.fix or "").splitlines():
                say(f"         → {line}")
    if not all(look.well for look in looks):
        raise typer.Exit(Exit.FAILED)


def _look(address: str | None, state: Path | None, project: Path) -> list[Look]:
    import asyncio
    import os

    from replicator.cli.doctor.agent import look_at_agent
    from replicator.cli.doctor.engine import look_at_litestream
    from replicator.cli.doctor.plugin import look_at_plugin
    from replicator.cli.doctor.pulumi import look_at_pulumi

    return [
        *look_at_pulumi(os.environ),
        *look_at_plugin(project, os.environ),
        *look_at_litestream(),
        *asyncio.run(look_at_agent(address, state)),
    ]


def _verdict(look: Look) -> str:
    if look.warning:
        return "warning"
    return "ok" if look.well else "problem"


def _plain(look: Look) -> dict[str, Any]:
    return {"about": look.about, "well": look.well, "warning": look.warning, "found": look.found, "fix": look.fix}

"""Checks of the live source and destination before a change, with the configured strictness."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.errors import AgentUnreachable, EngineUnavailable, ReplicatorError
from replicator.lifecycle.config import Preflight
from replicator.lifecycle.connections import Connections, StreamId
from replicator.model import Stream
from replicator.replicator import Finding, Severity


async def preflight(connections: Connections, stream: Stream, beside: Iterable[Finding] = ()) -> list[Finding]:
    """Return the backend's findings. If it is unreachable, that is a warning: a preview works offline.

    With `preflight: warn`, errors count as warnings; with `off`, nothing is checked.

    :param beside: what other streams of the program exclude.
    """
    strictness = connections.config.preflight
    if strictness is Preflight.OFF:
        return []
    try:
        found = [*beside, *await connections.replicator(StreamId.of(stream)).preflight(stream)]
    except (AgentUnreachable, EngineUnavailable) as error:
        found = [*beside, _unseen(error)]
    if strictness is Preflight.WARN:
        return [
            item.model_copy(update={"severity": Severity.WARNING}) if item.severity is Severity.ERROR else item
            for item in found
        ]
    return found


def _unseen(error: ReplicatorError) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code=error.code,
        message=f"this preview could not look at the source and the destination: {error.message}",
        fix=error.fix,
    )


def sentence(finding: Finding) -> str:
    """Return a finding as a sentence for the preview."""
    path = f"{finding.property}: " if finding.property else ""
    fix = f"\n  → {finding.fix}" if finding.fix else ""
    return f"{path}{finding.message} [{finding.code}]{fix}"

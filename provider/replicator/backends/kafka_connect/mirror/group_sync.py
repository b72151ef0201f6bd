"""Progress of consumer group offsets: the groups at the source, and the checkpoints at the destination."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from replicator.backends.kafka.positions import Partition
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.mirror.cluster_identity import Clients
from replicator.backends.kafka_connect.mirror.connector_configs import GROUPS, is_on, part_names
from replicator.backends.kafka_connect.mirror.topics import Naming
from replicator.errors import GroupsNotSynced, ReplicatorError
from replicator.model import Stream, format_time
from replicator.replicator import Finding, Severity

_GROUPS, _EXCLUDED = "groups", "groups.exclude"
_DEFAULTS = {_GROUPS: ".*", _EXCLUDED: "console-consumer-.*, connect-.*, __.*"}
"""Defaults of MirrorMaker 2 4.3."""


async def group_findings(ends: Clients, streams: Sequence[DeployedStream]) -> list[list[Finding]]:
    """Return, for each stream, findings about the groups that it follows; none if it follows none."""
    return await asyncio.gather(*(_findings(ends, deployed) for deployed in streams))


async def _findings(ends: Clients, deployed: DeployedStream) -> list[Finding]:
    stream = deployed.record.stream
    if not is_on(stream, GROUPS):
        return []
    try:
        groups, newest = await asyncio.gather(_groups(ends, stream), _last_checkpoint(ends, stream))
    except ReplicatorError as error:
        return [Finding.of(error, Severity.WARNING)]
    there = _connector(stream) in {connector.name for connector in deployed.others}
    return [group_finding(stream, groups, newest, there=there)]


def group_finding(
    stream: Stream, groups: Sequence[str] | None, newest: datetime | None, *, there: bool = True
) -> Finding:
    """Return the finding about the groups that a stream follows.

    :param groups: the matching groups at the source; `None` if unknown.
    :param newest: the time of the last checkpoint; `None` without one.
    :param there: whether the connector that writes the checkpoints exists.
    """
    topic, connector = _checkpoints(stream), _connector(stream)
    fix = None
    if not there:
        fix = f"the connector {connector} does not exist, so nothing is synced; run pulumi up --refresh"
    elif groups is not None and not groups:
        fix = f"set options.{_GROUPS}, or let a group commit its first offset; MirrorMaker 2 then writes its offsets"
    elif newest is None:
        fix = f"see the status of connector {connector}, and that the worker's user may write to {topic}"
    known = "an unknown number" if groups is None else len(groups)
    written = f"the last checkpoint is of {format_time(newest)}" if newest else "no checkpoint was written yet"
    return Finding(
        severity=Severity.WARNING if fix else Severity.INFO,
        code=GroupsNotSynced.code,
        message=f"groups of the source that match options.{_GROUPS}: {known}; {written} ({topic})",
        property=f"options.{GROUPS}",
        fix=fix,
    )


async def _groups(ends: Clients, stream: Stream) -> list[str] | None:
    """Return the groups that MirrorMaker 2 follows; `None` if its expressions are outside of the supported subset."""
    try:
        wanted, left_out = (_expression(stream, option) for option in (_GROUPS, _EXCLUDED))
    except re.error:
        return None
    found = await (await ends.brokers(stream, "source")).groups()
    return [name for name in found if wanted.fullmatch(name) and not left_out.fullmatch(name)]


def _expression(stream: Stream, option: str) -> re.Pattern[str]:
    given = str(stream.options.get(option, _DEFAULTS[option]))
    return re.compile("|".join(part.strip() for part in given.split(",")))


async def _last_checkpoint(ends: Clients, stream: Stream) -> datetime | None:
    at = Partition(_checkpoints(stream), 0)
    brokers = await ends.brokers(stream, "destination")
    if at.topic not in (await brokers.look_up([at.topic])).topics:
        return None
    found = (await brokers.newest([at])).get(at)
    return datetime.fromtimestamp(found.time / 1000, UTC) if found and found.time else None


def _connector(stream: Stream) -> str:
    """Return the name of the connector that writes the checkpoints."""
    return part_names(stream.name)[0]


def _checkpoints(stream: Stream) -> str:
    naming = Naming.of(stream)
    return naming.separator.join((naming.source, "checkpoints", "internal"))

"""The differences between two configurations of a provider, and their effects on its streams.

No change replaces the provider, since Pulumi would then replace all of its resources: each stream would be removed and
re-created, and replicate from the start. An address only says how to reach an agent. A new one mostly leads to the same
agent, and that cannot be checked offline. If it leads to another agent, the streams stay with the old one: a refresh at
the new address does not find them, and the next update creates them there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from replicator.backends import REGISTRY
from replicator.lifecycle.config import from_text, parse_config
from replicator.lifecycle.diff import Change, Kind, walk


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return every path that differs in meaning: JSON text equals the object that it holds, whatever its layout.

    A path leads into an object only if both sides hold it as an object, since Pulumi shows the values at the path.
    """
    found = list(walk(_meant(old), _meant(new)))
    texts = {key for side in (old, new) for key, value in side.items() if isinstance(value, str)}
    whole = dict.fromkeys(change.root for change in found if change.root in texts)
    return [change for change in found if change.root not in whole] + [_change(key, old, new) for key in whole]


def _change(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    return Change(key, Kind.ADD if key not in old else Kind.DELETE if key not in new else Kind.UPDATE)


def _meant(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(value) for key, value in inputs.items() if not key.startswith("__")}


def _value(value: Any) -> Any:
    try:
        return from_text(value)
    except json.JSONDecodeError:
        return value


def moved(old: Mapping[str, Any], new: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return the settings that move streams to another address; none if a side is unreadable."""
    (before, wrong), (after, also_wrong) = (parse_config(side, environ=environ) for side in (old, new))
    if wrong or also_wrong:
        return []
    found = []
    for backend in REGISTRY.values():
        for region in dict.fromkeys(["default", *before.block(backend).regions, *after.block(backend).regions]):
            if before.find(backend, region) not in (None, after.find(backend, region)):
                found.append(f"{backend.config_key}.{'address' if region == 'default' else f'regions.{region}'}")
    return found


def warning(path: str) -> str:
    """Return the warning about one of them."""
    return (
        f"{path}: streams stay where they are, and are looked for at the new address from now on; after this update "
        "a pulumi refresh shows which of them are not there"
    )

"""The schema that this release ships."""

from __future__ import annotations

import json
from pathlib import Path

from replicator import __version__


def schema_text() -> str:
    """Return schema.json with the version filled in. It is in a checkout's root, and beside this module in a wheel."""
    here = Path(__file__).parent
    candidates = (here / "schema.json", here.parents[2] / "schema.json")
    path = next(candidate for candidate in candidates if candidate.is_file())
    return json.dumps({**json.loads(path.read_text("utf-8")), "version": __version__})

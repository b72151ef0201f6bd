"""Check that modules have the names that readers look for: `python tools/names.py`, part of `make check`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

INSTEAD = {
    "leash": "pdeathsig",
    "values": "property_values",
    "messages": "diagnostics",
    "exchange": "http_unix or transport",
    "lane": "daemon_process",
    "lanes": "daemon_pool",
    "keeper": "stream_manager",
    "attachment": "reconciler",
    "shapes": "function_types",
    "origin": "config_source",
    "reconfigure": "config_diff",
    "marker": "record",
    "neighbours": "peer_clusters",
    "rewinding": "replay_executor",
    "strangers": "foreign_mirrors",
    "recent": "single_flight",
    "takeover": "litestream_import",
    "yml": "litestream_yaml",
    "holders": "lock_owners",
    "given": "builders",
    "faces": "harness",
    "bed": "mirror_env",
}
"""Names that say nothing in this field, and what to write."""


def main() -> int:
    """Print each module with a name of the list; return 1 where there is one."""
    modules = (path for folder in ("provider", "tests", "bench", "tools") for path in (ROOT / folder).rglob("*.py"))
    found = [path for path in sorted(modules) if path.stem in INSTEAD]
    for path in found:
        print(f"{path.relative_to(ROOT)}: name it {INSTEAD[path.stem]}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""A sync that the engine is asked for, so that a test need not wait for its clock. Only where no application writes."""

from __future__ import annotations

from pathlib import Path

from replicator.backends.sqlite.litestream import ControlClient, Synced


async def sync(control: ControlClient, path: Path, *, wait: bool, timeout: float) -> Synced:
    """Take what is in the WAL; with `wait`, also upload it. `backends.sqlite.lane` says why the product asks for none.

    Without `wait` a failing destination does not show, and with nothing new to upload not even with it.
    """
    answer = await control._post("/sync", {"path": str(path), "wait": wait}, timeout, limit=timeout)
    return Synced(
        changed=answer["status"] != "no_change",
        txid=answer["txid"] or None,
        replicated_txid=answer["replicated_txid"] or None,
    )

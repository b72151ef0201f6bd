"""`replicator adopt` where nothing can be adopted; what it takes over is tested with the engines."""

from __future__ import annotations

import pytest

from tests.agent.support import Host, call


def test_without_a_terminal_it_does_nothing_unasked() -> None:
    code, out, err = call("adopt", "orders", "--address", "http://127.0.0.1:9")
    assert (code, out) == (2, "")
    assert "there is no terminal to ask on" in err


@pytest.mark.engine
def test_an_agent_adopts_files_and_no_names(host: Host) -> None:
    host.start()
    code, out, err = call("adopt", "orders", "--dry-run", "--backend", "litestream", "--address", host.address)
    assert (code, out) == (1, "")
    assert "litestream adopts nothing by name" in err
    assert "→ take over databases that litestream replicates with replicator agent adopt litestream.yml" in err

"""A demo shows each thing that Pulumi says once."""

from __future__ import annotations

import pytest

from tools.stage import lag, told_once

PRINTED = """
Previewing update (dev):

@ previewing update....
 +  pulumi:pulumi:Stack shop-dev create
 +  pulumi:pulumi:Stack shop-dev create backend: litestream, the only one here
 ~  replicator:index:Stream orders update [diff: ~destination]
 ~  replicator:index:Stream orders update [diff: ~destination]; warning: destination.uri: re-snapshots
    pulumi:pulumi:Stack shop-dev  1 message
Diagnostics:
  pulumi:pulumi:Stack (shop-dev):
    backend: litestream, the only one here

Resources:
    + 1 to create

@ updating....
 ~  replicator:index:Stream orders updating (0s) [diff: ~destination]
 ~  replicator:index:Stream orders updated (0.16s) [diff: ~destination]
"""
SHOWN = """
 +  pulumi:pulumi:Stack shop-dev create
 ~  replicator:index:Stream orders update [diff: ~destination]
Diagnostics:
  pulumi:pulumi:Stack (shop-dev):
    backend: litestream, the only one here
Resources:
    + 1 to create
 ~  replicator:index:Stream orders updated (0.16s) [diff: ~destination]
"""


def test_each_step_once_and_a_preview_apart_from_its_update() -> None:
    assert told_once(PRINTED) == SHOWN.strip("\n").splitlines()


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ({}, "not known"),
        ({"lagSeconds": 0.0, "lagEvents": 0}, "0.0 s"),
        ({"lagSeconds": 0.01, "lagEvents": 3}, "<0.1 s"),
        ({"lagSeconds": 1.26, "lagEvents": 3}, "1.3 s"),
    ],
)
def test_a_lag_in_words(now: dict[str, float], text: str) -> None:
    assert lag(now) == text

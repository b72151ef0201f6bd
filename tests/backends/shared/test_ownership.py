"""Who may change a stream."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends import stream_id
from replicator.backends.shared.ownership import may_remove, settle_owner
from replicator.errors import NotOurs, OwnedByAnother, ReplicatorError
from replicator.model import Owner, Stream, token_digest

from tests.lifecycle.builders import OTHER_URN, S3, SQLITE, URN, stream

TOKEN, NEW = "t" * 32, "n" * 32
MINE = Owner(urn=URN, token=token_digest(TOKEN))
IN_CLEAR = Owner(urn=URN, token=TOKEN)
"""As records of release 0.1 have it."""
THEIRS = Owner(urn=OTHER_URN, token=token_digest("other"))

CREATES = Owner(urn=URN, issue=NEW)
HOLDS = Owner(urn=URN, token=TOKEN, claim=True)
RENAMED = Owner(urn=OTHER_URN, token=TOKEN, issue=NEW, claim=True)
STALE = Owner(urn=URN, token="older", claim=True)
IMPORTED = Owner(urn=OTHER_URN, token=token_digest(TOKEN), issue=NEW, claim=True)
IMPORTED_HERE = Owner(urn=URN, token=token_digest(TOKEN), issue=NEW, claim=True)
INSIDE = URN.replace("replicator:index", "my:Component$replicator:index")
WITHOUT = Owner(urn=URN, issue=NEW, claim=True)
"""A state without a token: an import of a stream that had no owner."""


def owned(owner: Owner | None, **changes: Any) -> Stream:
    return stream(**changes).model_copy(update={"owner": owner})


def owner(urn: str, token: str) -> Owner:
    return Owner(urn=urn, token=token_digest(token))


@pytest.mark.parametrize(
    ("record", "caller", "expected"),
    [
        (MINE, None, MINE),  # an operator
        (None, None, None),
        (None, CREATES, NotOurs),
        (MINE, CREATES, owner(URN, NEW)),  # a lost reply, or a replacement that Pulumi was asked for
        (IN_CLEAR, CREATES, owner(URN, NEW)),
        (owner(URN, NEW), CREATES, owner(URN, NEW)),  # the same call again
        (THEIRS, CREATES, OwnedByAnother),
        (MINE, HOLDS, MINE),
        (IN_CLEAR, HOLDS, MINE),
        (None, HOLDS, MINE),
        (THEIRS, HOLDS, OwnedByAnother),
        (MINE, RENAMED, owner(OTHER_URN, NEW)),
        (owner(OTHER_URN, NEW), RENAMED, owner(OTHER_URN, NEW)),
        (MINE, STALE, OwnedByAnother),
        (THEIRS, STALE, OwnedByAnother),
        (MINE, IMPORTED, owner(OTHER_URN, NEW)),
        (IN_CLEAR, IMPORTED, owner(OTHER_URN, NEW)),
        (owner(URN, "newer"), IMPORTED, OwnedByAnother),
        (None, WITHOUT, owner(URN, NEW)),
        (MINE, WITHOUT, owner(URN, NEW)),
        (THEIRS, WITHOUT, OwnedByAnother),
    ],
)
def test_who_owns_a_record_after_a_change(
    record: Owner | None, caller: Owner | None, expected: Owner | type[ReplicatorError] | None
) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected) as caught:
            settle_owner(owned(record), owned(caller))
        assert caught.value.stream == "orders"
        assert record is None or record.urn in str(caught.value)
    else:
        assert settle_owner(owned(record), owned(caller)) == expected


@pytest.mark.parametrize(
    ("before", "alias"),
    [
        (URN.replace("::orders", "::sales"), "aliases: [{name: sales}]; else choose another name"),
        (INSIDE, f'aliases: ["{INSIDE}"]; else choose another name'),
        (URN.replace(":dev::", ":prod::"), None),
        (URN.replace("::shop::", "::billing::"), None),
        ("somebody", None),
    ],
)
def test_a_renamed_resource_is_told_the_alias_that_it_needs(before: str, alias: str | None) -> None:
    with pytest.raises(OwnedByAnother) as caught:
        settle_owner(owned(owner(before, "other")), owned(CREATES))
    fix = caught.value.fix or ""
    if alias is None:
        assert fix.startswith("choose another name; or, if ")
    else:
        assert fix.startswith(f"if this resource was renamed or moved below another parent, give it the option {alias}")


@pytest.mark.parametrize("end", ["source", "destination"])
@pytest.mark.parametrize(("caller", "refused"), [(CREATES, True), (HOLDS, False), (WITHOUT, False), (None, False)])
def test_a_create_adopts_only_the_same_ends(end: str, caller: Owner | None, refused: bool) -> None:
    other = owned(caller, **{end: {**S3, "uri": "s3://elsewhere/orders"}})
    if not refused:
        settle_owner(owned(MINE), other)
        return
    with pytest.raises(OwnedByAnother) as caught:
        settle_owner(owned(MINE), other)
    for word in (URN, SQLITE["uri"], S3["uri"], "pulumi import", "choose another name"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (None, None),
        (CREATES, owner(URN, NEW)),
        (HOLDS, MINE),
        (RENAMED, owner(OTHER_URN, NEW)),
        (IMPORTED_HERE, owner(URN, NEW)),
    ],
)
def test_the_owner_of_a_new_record(caller: Owner | None, expected: Owner | None) -> None:
    assert settle_owner(None, owned(caller)) == expected


@pytest.mark.parametrize(
    ("record", "caller", "expected"),
    [
        (MINE, None, True),
        (None, HOLDS, True),
        (None, CREATES, NotOurs),
        (MINE, HOLDS, True),
        (IN_CLEAR, HOLDS, True),
        (MINE, RENAMED, True),
        (MINE, STALE, False),
        (THEIRS, HOLDS, False),
        (MINE, IMPORTED_HERE, True),
        (MINE, IMPORTED, OwnedByAnother),  # its record still names the original, which may be in a stack
        (owner(URN, "newer"), IMPORTED, False),
        (MINE, WITHOUT, True),
        (THEIRS, WITHOUT, OwnedByAnother),
    ],
)
def test_who_may_remove(record: Owner | None, caller: Owner | None, expected: bool | type[ReplicatorError]) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected):
            may_remove(owned(record), caller)
    else:
        assert may_remove(owned(record), caller) is expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [(SQLITE, "memory/default/orders"), ({**SQLITE, "region": "eu-fra"}, "memory/eu-fra/orders")],
)
def test_the_id_to_import(source: dict[str, str], expected: str) -> None:
    assert stream_id(stream(source=source)) == expected


@pytest.mark.parametrize(
    ("uri", "adopted"), [("s3://bucket/orders/", True), ("s3://bucket/a/..", False), ("s3://bucket/other", False)]
)
@pytest.mark.parametrize("backend", ["litestream", None])
def test_a_create_adopts_the_same_place_in_another_spelling(uri: str, adopted: bool, backend: str | None) -> None:
    record = owned(MINE, backend="litestream")
    wanted = owned(CREATES, backend=backend, destination={**S3, "uri": uri})
    if adopted:
        assert settle_owner(record, wanted) == owner(URN, NEW)
    else:
        with pytest.raises(OwnedByAnother):
            settle_owner(record, wanted)

"""Who may change a stream, and which destinations exclude each other."""

from __future__ import annotations

import pytest
from replicator.backends import stream_id
from replicator.backends.ownership import (
    check_owner,
    destination_key,
    refuse_shared_destination,
    settle_owner,
)
from replicator.errors import DestinationInUse, NotOurs, OwnedByAnother
from replicator.model import Endpoint, Owner, Stream

from tests.lifecycle.given import OTHER_URN, S3, SQLITE, URN, stream

MINE = Owner(urn=URN, token="t")


def owned(owner: Owner | None) -> Stream:
    return stream().model_copy(update={"owner": owner})


@pytest.mark.parametrize(
    ("record", "caller", "refused"),
    [
        (None, None, None),
        (MINE, None, None),  # an operator at the agent
        (MINE, MINE, None),
        (MINE, Owner(urn=OTHER_URN, token="t"), None),  # renamed
        (MINE, Owner(urn=URN), None),  # after a lost reply
        (MINE, Owner(urn=URN, token="u"), OwnedByAnother),
        (MINE, Owner(urn=OTHER_URN), OwnedByAnother),
        (MINE, Owner(urn=OTHER_URN, claim=True), OwnedByAnother),
        (Owner(urn=URN), Owner(urn=URN, token="t"), OwnedByAnother),
        (None, Owner(urn=URN), NotOurs),
        (None, Owner(urn=URN, claim=True), None),
    ],
)
def test_who_may_change_a_record(record: Owner | None, caller: Owner | None, refused: type[Exception] | None) -> None:
    if refused is None:
        check_owner(owned(record), caller)
        settle_owner(owned(record), owned(caller))
    else:
        with pytest.raises(refused):
            settle_owner(owned(record), owned(caller))
        with pytest.raises(refused) as caught:
            check_owner(owned(record), caller)
        assert str(caught.value).startswith("stream 'orders': ")
        assert (URN in str(caught.value)) is (refused is OwnedByAnother)


@pytest.mark.parametrize(
    ("record", "caller", "expected"),
    [
        (MINE, None, MINE),
        (MINE, Owner(urn=URN), MINE),
        (MINE, Owner(urn=OTHER_URN, token="t", claim=True), Owner(urn=OTHER_URN, token="t")),
        (None, None, None),
    ],
)
def test_the_owner_that_is_recorded(record: Owner | None, caller: Owner | None, expected: Owner | None) -> None:
    settled = settle_owner(owned(record), owned(caller))
    assert settled == expected
    assert settled is None or not settled.claim


def test_a_new_record_gets_a_token_or_keeps_the_callers() -> None:
    made = settle_owner(None, owned(Owner(urn=URN)))
    assert made is not None
    assert len(made.token or "") == 32
    assert settle_owner(None, owned(MINE.model_copy(update={"claim": True}))) == MINE
    assert settle_owner(None, owned(None)) is None
    claimed = settle_owner(owned(None), owned(Owner(urn=URN, claim=True)))
    assert claimed is not None
    assert claimed.token


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ("s3://b/p", "s3://b/p", True),
        ("s3://b/p", "s3://b/p/", True),
        ("s3://b/p?region=a", "s3://b/p?region=b", True),
        ("s3://b/p", "s3://b/p/below", True),
        ("s3://b/p/below", "s3://b/p", True),
        ("s3://b/p", "s3://b/p2", False),
        ("s3://b/p", "s3://c/p", False),
        ("file:///b/p", "s3://b/p", False),
        ("s3://b/a/../p", "s3://b/p", False),  # in object storage `..` is a name like any other
        ("s3://B/p", "s3://b/P", False),
    ],
)
def test_one_writer_for_each_destination(one: str, two: str, shared: bool) -> None:
    first = stream(destination={**S3, "uri": one})
    second = stream(name="bills", destination={**S3, "uri": two})
    if not shared:
        refuse_shared_destination(second, [first])
        return
    with pytest.raises(DestinationInUse) as caught:
        refuse_shared_destination(second, [first])
    assert (caught.value.stream, caught.value.property) == ("bills", "destination.uri")
    assert "stream 'orders' writes to" in caught.value.message


def test_a_stream_does_not_exclude_itself() -> None:
    refuse_shared_destination(stream(mode="cdc"), [stream()])


def test_the_place_of_an_endpoint_is_without_its_parameters() -> None:
    endpoint = Endpoint.model_validate({**S3, "uri": "s3://b/p/?endpoint=http://127.0.0.1:1/x"})
    assert destination_key(endpoint) == "s3://b/p"


@pytest.mark.parametrize(
    ("source", "expected"),
    [(SQLITE, "memory/default/orders"), ({**SQLITE, "region": "eu-fra"}, "memory/eu-fra/orders")],
)
def test_the_id_to_import(source: dict[str, str], expected: str) -> None:
    assert stream_id(stream(source=source)) == expected

"""Which mirrors would write a topic twice, or bring back what another one copied; as far as they are known."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends.kafka_connect.mirror.routes import Route, refuse_circle, refuse_overlap, refuse_own_copies
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import DestinationInUse, InvalidStream

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare

URIS = {word: f"kafka://{word}:9092" for word in ("east", "west", "north")}


def mirror(way: str, *, seen: bool = True, regions: bool = False, **changes: Any) -> StreamRecord:
    """A mirror such as `east>west`, with names kept unless it is written `east->west`."""
    source, _, destination = way.replace("->", ">").partition(">")
    keeps = {} if "->" in way else {"options": IDENTITY}
    ends = {
        end: {"uri": URIS[word], **({"region": word} if regions else {})}
        for end, word in (("source", source), ("destination", destination))
    }
    stream = declare(**{"name": "other", **keeps, **ends, **changes})
    record = StreamRecord(stream=stream, source_cluster=source, destination_cluster=destination)
    return record if seen else StreamRecord(stream=stream)


ALL: dict[str, Any] = {"include": []}


@pytest.mark.parametrize(
    ("mine", "others", "topics", "circle"),
    [
        (mirror("east>west"), [mirror("west>east")], ["orders"], ["other"]),
        (mirror("east>west"), [mirror("west>east")], None, ["other"]),
        (mirror("east>west", seen=False), [mirror("west>east", seen=False)], None, ["other"]),
        (mirror("east>west", **ALL), [mirror("west>east", include=["later"])], ["orders"], ["other"]),
        (mirror("east>west", include=["o*"]), [mirror("west>east", include=["orders?"])], [], ["other"]),
        (
            mirror("east>west"),
            [mirror("west>north", name="one"), mirror("north>east", name="two")],
            ["orders"],
            ["one", "two"],
        ),
        # Prefixed, and without regions: both have the alias "source", so each copy gets another name for ever.
        (mirror("east->west", **ALL), [mirror("west->east", **ALL)], ["orders"], ["other"]),
        (mirror("east->west", **ALL), [mirror("west>east", **ALL)], ["orders"], ["other"]),
        (mirror("east>west", include=["ha*"]), [mirror("west>east", include=["h*b"])], ["other"], ["other"]),
        # Nothing comes back.
        (mirror("east>west", include=["ha*"], exclude=["*b"]), [mirror("west>east", include=["h*b"])], [], None),
        (mirror("east->west", regions=True, **ALL), [mirror("west->east", regions=True, **ALL)], ["orders"], None),
        (mirror("east->west"), [mirror("west->east")], ["orders"], None),
        (mirror("east>west"), [mirror("west>east", include=["bills"])], ["orders", "bills"], None),
        (mirror("east>west"), [mirror("west>east", **ALL, exclude=["orders"])], ["orders"], None),
        (mirror("east>west"), [mirror("north>east")], ["orders"], None),
        (mirror("east>west"), [mirror("west>north")], ["orders"], None),
        (mirror("east>west"), [mirror("west>north", name="one"), mirror("north>west", name="two")], ["orders"], None),
        (mirror("east>west"), [], ["orders"], None),
    ],
)
def test_what_would_come_back_is_refused_with_the_way(
    mine: StreamRecord, others: list[StreamRecord], topics: list[str] | None, circle: list[str] | None
) -> None:
    if circle is None:
        refuse_circle(Route.of(mine), [Route.of(other) for other in others], topics)
        return
    with pytest.raises(InvalidStream, match=", ".join(f"'{name}'" for name in circle)) as refused:
        refuse_circle(Route.of(mine), [Route.of(other) for other in others], topics)
    assert refused.value.property == "include"


@pytest.mark.parametrize(
    ("mine", "other", "topics", "shared"),
    [
        (mirror("east->west"), mirror("east->west"), ["orders"], "source.orders"),
        (mirror("east->west"), mirror("east->west"), None, "source.orders"),
        (mirror("east->west", seen=False), mirror("east->west"), None, "source.orders"),
        (mirror("east>west"), mirror("north>west"), ["orders"], "orders"),
        (mirror("east->west"), mirror("north->west"), ["orders"], "source.orders"),
        (mirror("east->west"), mirror("north>west", include=["source.orders"]), ["orders"], "source.orders"),
        (mirror("east>west", **ALL), mirror("east>west", include=["b*"]), ["orders", "bills"], "bills"),
        (mirror("east>west", include=["o*"]), mirror("east>west", include=["ord*"]), [], "ord"),
        (mirror("east>west", include=["ha*"]), mirror("east>west", include=["h*b"]), ["other"], "hab"),
        (mirror("east>west", include=["*.a"]), mirror("east>west", include=["b.*"]), [], "b.a"),
        (mirror("east->west", **ALL), mirror("east>west", include=["source.*.b"]), [], "source.a.b"),
        (mirror("east>west", include=["a*"]), mirror("east>west", include=["*b"], exclude=["a*"]), [], None),
        (mirror("east>west", include=["a*"], exclude=["*b"]), mirror("east>west", include=["*b"]), [], None),
        (mirror("east>west", include=["a-*"]), mirror("east>west", include=["*-internal"]), [], None),
        (mirror("east->west", include=["h*"]), mirror("east>west", include=["h*"]), [], None),
        (mirror("east->west", **ALL), mirror("east>west", include=["*"]), [], None),
        (mirror("east->west", regions=True), mirror("north->west", regions=True), ["orders"], None),
        (mirror("east->west"), mirror("east->north"), ["orders"], None),
        (mirror("east->west"), mirror("east>west"), ["orders"], None),
        (mirror("east>west"), mirror("east>west", include=["bills"]), ["orders", "bills"], None),
        (mirror("east>west", **ALL, exclude=["bills"]), mirror("east>west", include=["bills"]), ["bills"], None),
    ],
)
def test_a_topic_has_one_writer(
    mine: StreamRecord, other: StreamRecord, topics: list[str] | None, shared: str | None
) -> None:
    if shared is None:
        refuse_overlap(Route.of(mine), [Route.of(other)], topics)
        return
    with pytest.raises(DestinationInUse, match=f"'other' writes to {shared} too"):
        refuse_overlap(Route.of(mine), [Route.of(other)], topics)


def test_a_cluster_is_known_by_its_id_whatever_its_address() -> None:
    one = mirror("east->west")
    moved = StreamRecord(
        stream=declare(name="other", destination={"uri": "kafka://secure:9093"}), destination_cluster="west"
    )
    with pytest.raises(DestinationInUse):
        refuse_overlap(Route.of(one), [Route.of(moved)], ["orders"])
    rebuilt = one.model_copy(update={"stream": declare(name="other"), "destination_cluster": "another"})
    refuse_overlap(Route.of(one), [Route.of(rebuilt)], ["orders"])


@pytest.mark.parametrize(
    ("changes", "topics", "refused"),
    [
        ({"include": []}, ["orders", "source.orders"], True),
        ({"include": ["source.*"]}, None, True),
        ({"include": []}, None, False),
        ({"include": [], "exclude": ["source.*"]}, ["orders", "source.orders"], False),
        ({"include": [], "options": IDENTITY}, ["orders", "source.orders"], False),
        ({"include": [], "source": {"region": "eu"}}, ["orders", "source.orders"], False),
    ],
)
def test_copies_of_itself_are_refused(changes: dict[str, Any], topics: list[str] | None, refused: bool) -> None:
    stream = declare(**changes)
    mine = Route.of(StreamRecord(stream=stream))
    if not refused:
        refuse_own_copies(mine, stream.include, topics)
        return
    with pytest.raises(InvalidStream, match=r"source\.\w+ looks like a copy") as error:
        refuse_own_copies(mine, stream.include, topics)
    assert "exclude source.*" in str(error.value.fix)

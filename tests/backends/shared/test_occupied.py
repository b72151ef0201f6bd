"""Places by where they are: the answers of a look at every pair, at a cost that does not grow with their number."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from replicator.backends.memory import MemoryReplicator
from replicator.backends.shared import occupied as module
from replicator.backends.shared.identity import Identity, Look
from replicator.backends.shared.occupied import Occupied
from replicator.backends.shared.reservations import Reservations
from replicator.model import Stream

NAMES = ("a", "b", "c")
BUCKETS = ("s3://b/p", "s3://b/p/q", "s3://b/pq", "s3://b/p?endpoint=http://h:1", "s3://c/p")


@dataclass(frozen=True)
class Spot:
    """A key and its place."""

    uri: str
    place: Identity

    @property
    def places(self) -> Iterable[Identity]:
        return (self.place,)


def compute(uri: str, look: Look) -> Spot:
    return Spot(uri, look.at(uri))


def test_it_answers_as_a_look_at_every_pair_does(tmp_path: Path) -> None:
    chance = random.Random(7)
    occupied = Occupied[str, Spot](compute)
    kept: list[str] = []
    touching = 0

    def path() -> Path:
        return tmp_path.joinpath(*chance.choices(NAMES, k=chance.randrange(1, 4)))

    def change_the_disk() -> None:
        """Links lead elsewhere, folders come, go and move, files get a second name."""
        one, other = path(), path()
        with suppress(OSError, shutil.Error):
            match chance.randrange(6):
                case 0:
                    one.mkdir(parents=True)
                case 1:
                    one.parent.mkdir(parents=True, exist_ok=True)
                    one.symlink_to(other)
                case 2:
                    one.rename(other)
                case 3:
                    one.parent.mkdir(parents=True, exist_ok=True)
                    one.touch()
                case 4:
                    os.link(one, other)
                case 5:
                    shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()

    for step in range(600):
        change_the_disk()
        if len(kept) < 25 or chance.random() < 0.5:
            uri = chance.choice([*BUCKETS, f"file://{path()}", f"sqlite://{path()}"])
            kept.append(uri)
            occupied.add(uri)
        else:
            occupied.drop(kept.pop(chance.randrange(len(kept))))
        asked = chance.choice([*BUCKETS, f"file://{path()}"])
        mine, _ = occupied.visit_now(asked) if step % 2 else asyncio.run(occupied.visit(asked))
        look = Look()
        expected = {uri for uri in kept if look.at(uri).overlaps(look.at(asked))}
        found = {spot.uri for spot in occupied.near(mine) if spot.place.overlaps(mine.place)}
        assert found == expected, (step, asked)
        touching += len(expected)
    assert touching > 500, "most of them say something"
    for uri in kept:
        occupied.drop(uri)
    assert not any((occupied._at, occupied._under, occupied._names, occupied._seen, occupied._found)), "nothing is left"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_second_name_of_a_file_is_found_and_so_is_a_name_that_comes_later(
    tmp_path: Path, asynchronous: bool
) -> None:
    one, other = tmp_path / "x" / "one.db", tmp_path / "y" / "other.db"
    for folder in (one.parent, other.parent):
        folder.mkdir()
    one.touch()
    occupied = Occupied[str, Spot](compute)
    occupied.add(f"sqlite://{one}")

    async def near() -> list[str]:
        uri = f"sqlite://{other}"
        mine, _ = await occupied.visit(uri) if asynchronous else occupied.visit_now(uri)
        return [spot.uri for spot in occupied.near(mine)]

    assert await near() == []
    other.hardlink_to(one)
    assert await near() == [f"sqlite://{one}"]
    other.unlink()
    other.parent.rmdir()
    other.parent.symlink_to(one.parent)
    one.rename(one.with_name("other.db"))
    assert await near() == []
    one.symlink_to(one.with_name("other.db"))
    assert await near() == [f"sqlite://{one}"]


def declare(number: int, folder: Path | None = None) -> Stream:
    ends = {
        "source": {"kind": "sqlite", "uri": f"sqlite:///srv/{number}.db"},
        "destination": {"kind": "s3", "uri": f"file://{folder}/{number}" if folder else f"s3://bucket/{number}"},
    }
    return Stream.model_validate({"name": f"s{number}", "backend": "memory", **ends})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often two streams were compared, and how often a name was looked at on the disk."""
    counts = {"pairs": 0, "sights": 0}

    def count(owner: object, name: str, what: str) -> None:
        original: Callable[..., object] = getattr(owner, name)

        def counting(*arguments: object) -> object:
            counts[what] += 1
            return original(*arguments)

        monkeypatch.setattr(owner, name, counting)

    count(Reservations, "refuse_both", "pairs")
    count(module, "sight_of", "sights")
    return counts


async def test_a_stream_among_thousands_is_compared_with_none_of_them(counted: dict[str, int]) -> None:
    replicator = MemoryReplicator()
    for number in range(2000):
        await replicator.preflight(declare(number))
        await replicator.upsert_stream(declare(number))
    assert counted == {"pairs": 0, "sights": 0}


async def test_starts_at_once_share_a_look_at_the_disk(counted: dict[str, int], tmp_path: Path) -> None:
    streams = [declare(number, tmp_path) for number in range(200)]
    reservations = Reservations()
    for stream in streams[:150]:
        reservations.keep(stream)
    await reservations.check(streams[0])
    counted["sights"] = 0

    async def start(stream: Stream) -> None:
        async with reservations.hold(stream):
            await asyncio.sleep(0.1)

    await asyncio.gather(*map(start, streams[150:]))
    depth = len(tmp_path.parts)
    assert counted["pairs"] == 0
    assert counted["sights"] <= 3 * (150 + 50 + depth), "not once for each start"

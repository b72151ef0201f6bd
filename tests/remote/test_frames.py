"""The frames of `replicator agent dial-stdio --multiplex`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicator.remote.ssh.frames import LARGEST, FrameError, Frames, Kind, data, frame

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=10)


@given(FRAMES, st.integers(1, 50))
def test_frames_are_found_however_they_arrive(sent: list[tuple[Kind, int, bytes]], step: int) -> None:
    stream = b"".join(frame(*one) for one in sent)
    frames = Frames()
    found = [one for start in range(0, len(stream), step) for one in frames.feed(stream[start : start + step])]
    assert found == sent


def test_long_content_is_divided() -> None:
    content = bytes(range(256)) * 700
    found = list(Frames().feed(data(7, content)))
    assert {(kind, number) for kind, number, _ in found} == {(Kind.DATA, 7)}
    assert b"".join(part for _, _, part in found) == content
    assert max(len(part) for _, _, part in found) == LARGEST


@pytest.mark.parametrize("head", [b"\x00" + bytes(8), b"\x09" + bytes(8), b"\x02\x00\x00\x00\x01\x00\x01\x00\x01"])
def test_what_is_no_frame_is_refused(head: bytes) -> None:
    with pytest.raises(FrameError):
        list(Frames().feed(head))

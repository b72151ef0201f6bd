"""docs/getting-started.md, step by step: every command runs, and prints what the page says.

python -m tests.e2e.test_getting_started: write what the commands print into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from replicator import __version__

from tests.e2e.walk import Ran, Step, Walk, compared, screen, steps, walk
from tests.pulumi import ROOT

PAGE = ROOT / "docs" / "getting-started.md"


@pytest.fixture
def ana() -> Iterator[Walk]:
    with walk() as made:
        yield made


@pytest.mark.engine
def test_every_step_prints_what_the_page_says(ana: Walk) -> None:
    walked = list(steps(PAGE))
    ran = ana.run(walked)
    assert [
        step for step, done in zip(walked, ran, strict=True) if compared(step.printed) != compared(done.printed)
    ] == []
    failed = [step for step, done in zip(walked, ran, strict=True) if done.code]
    assert [step.command for step in failed] == ["pulumi destroy --yes --skip-preview"]
    assert "RPL-STREAM-PROTECTED" in failed[0].printed
    wheel = f"replicator_provider-{__version__}-py3-none-any.whl"
    assert {path.name for path in ana.home.iterdir()} == {".local", ".pulumi", "shop", wheel}


def test_files_and_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ a b\nc\n  $ d\n$ e\n```\n```\n$ f\n```\n\n```yaml g.yaml\nh: 1\n```\n")
    first, second, third = steps(page)
    assert (first, second) == (Step("a b", "c\n  $ d\n"), Step("e"))
    assert third.command.startswith("cat > g.yaml <<'")
    assert "\nh: 1\n" in third.command


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("\x1b[38;5;13ma\x1b[0m b  \r\nc\r\n", "a b\nc\n"),
        ("old line\r\nsecond\r\n\x1b[2Anew\x1b[K\r\n", "new\nsecond\n"),
        ("50 %\r100", "100%"),
    ],
)
def test_a_screen_shows_what_was_written_last(written: str, seen: str) -> None:
    assert screen(written) == seen


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "process 12, 0.25s, 1 s ago, 2026-12-01T05:13:08.295Z",
            "process 7, 3s, 20 s ago, 2027-01-01T00:00:00.000Z",
            True,
        ),
        ("Diagnostics:\n a\n b", "Diagnostics:\n b\n a", True),
        ("a\nb", "b\na", False),
        ("2 created", "1 created", False),
        ("checkpoint 0000000000000001", "checkpoint 0000000000000002", False),
    ],
)
def test_only_what_differs_between_runs_is_left_out(one: str, other: str, same: bool) -> None:
    assert (compared(one) == compared(other)) is same


def written(page: str, walked: Sequence[Step], ran: Sequence[Ran]) -> str:
    """The page with what its commands printed."""
    found = iter(
        [(step, done) for step, done in zip(walked, ran, strict=True) if not step.command.startswith("cat > ")]
    )

    def block(match: re.Match[str]) -> str:
        taken = [next(found) for _ in re.findall(r"^\$ ", match[0], re.MULTILINE)]
        text = "".join(f"$ {step.command}\n{done.printed}" for step, done in taken)
        return f"```console\n{text.rstrip()}\n```\n"

    return re.sub(r"^```console\n.*?^```\n", block, page, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    with walk() as made:
        taken = list(steps(PAGE))
        PAGE.write_text(written(PAGE.read_text("utf-8"), taken, made.run(taken)), "utf-8")

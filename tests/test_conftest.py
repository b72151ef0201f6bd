"""The rules about skips, on test files of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = "from tests.engines import find_engine\n\n\ndef test_it() -> None:\n    find_engine('no-such-engine')\n"
FIXTURE = """
import pytest
from tests.engines import find_engine

@pytest.fixture
def engine() -> object:
    return find_engine("no-such-engine")

def test_it(engine: object) -> None:
    assert engine
"""
CASES = {
    "passes": ("def test_it() -> None:\n    assert True\n", "PASSED", "PASSED"),
    "skips": ("import pytest\n\ndef test_it() -> None:\n    pytest.skip('why')\n", "SKIPPED", "FAILED"),
    "skips_whole": ("import pytest\npytest.skip('why', allow_module_level=True)\n", "SKIPPED", "ERROR"),
    "xfails": ("import pytest\n\n@pytest.mark.xfail\ndef test_it() -> None:\n    assert 0\n", "XFAIL", "XFAIL"),
    "engine": (ENGINE, "SKIPPED", "FAILED"),
    "fixture": (FIXTURE, "SKIPPED", "ERROR"),
}


@pytest.mark.parametrize("ci", [False, True], ids=["laptop", "ci"])
def test_skips(tmp_path: Path, ci: bool) -> None:
    for name, (text, *_) in CASES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    lines = _run(tmp_path, ci=ci)
    for name, (_, laptop, strict) in CASES.items():
        word = strict if ci else laptop
        assert any(line.startswith(f"{word} ") and f"test_{name}.py" in line for line in lines), (name, lines)
    assert ci or sum("no-such-engine is not installed" in line for line in lines) == 2


def _run(folder: Path, *, ci: bool) -> list[str]:
    """One run for all files, because a start of pytest takes a second."""
    environment = {**os.environ, "REPLICATOR_CI": "1" if ci else "0"}
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    shown = ["-rA", "--no-fold-skipped", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *plugins, *shown, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (1 if ci else 0), done.stdout
    return done.stdout.splitlines()

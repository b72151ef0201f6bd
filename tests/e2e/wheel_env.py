"""A Python with one wheel of ours and its dependencies; its folder of scripts is on no PATH."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def make(folder: Path, wheel: Path) -> Path:
    """Make the environment in a folder; return its Python. Dependencies are links to those of this environment."""
    here = Path(sysconfig.get_path("purelib"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    there = here.relative_to(sys.prefix)
    for item in here.iterdir():
        if "replicator" not in item.name and item.name != "__pycache__":
            (folder / "venv" / there / item.name).symlink_to(item)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    return python

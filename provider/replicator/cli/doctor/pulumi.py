"""Checks whether a recent Pulumi CLI is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

from replicator.cli.doctor.look import Look

MINIMUM = (3, 206)
"""The oldest supported Pulumi CLI."""

_ANSWER_WITHIN = 30.0
_INSTALL = "install Pulumi 3.206 or newer: https://www.pulumi.com/docs/install"


def look_at_pulumi(environ: Mapping[str, str]) -> list[Look]:
    """Check the CLI on PATH."""
    path = shutil.which("pulumi", path=environ.get("PATH", ""))
    if path is None:
        return [Look("pulumi", "there is no pulumi on PATH", _INSTALL)]
    try:
        asked = subprocess.run(
            [path, "version"],
            env={**environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            text=True,
            timeout=_ANSWER_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Look("pulumi", f"{path} does not run: {error}", _INSTALL)]
    text = asked.stdout.strip()
    match = re.match(r"v?(\d+)\.(\d+)\.", text)
    if match is None:
        return [Look("pulumi", f"{path} does not tell its version: {text or asked.stderr.strip()}", _INSTALL)]
    found = f"{text.removeprefix('v')} at {path}"
    if (int(match[1]), int(match[2])) < MINIMUM:
        return [Look("pulumi", f"{found} is older than {MINIMUM[0]}.{MINIMUM[1]}", _INSTALL)]
    return [Look("pulumi", found)]

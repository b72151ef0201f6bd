"""The README's program prints what the README says."""

from __future__ import annotations

import re

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.e2e.conftest import Make
from tests.e2e.litestream import BUCKET, World
from tests.pulumi import ROOT

pytestmark = pytest.mark.engine

DATABASE, PREFIX = "sqlite:///var/lib/shop/shop.db", "s3://backups/eu/orders?region=eu-central-1"


def fences(language: str = "") -> list[str]:
    tokens = MarkdownIt().parse((ROOT / "README.md").read_text())
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


def words(text: str) -> str:
    """A text as Pulumi prints it for a person, without its lines' breaks."""
    return " ".join(text.split())


def test_the_program_and_its_previews(here: World, make_project: Make) -> None:
    [text] = fences("yaml")
    first, later = (text for text in fences() if text.startswith((" +  ", " ~  ")))
    here.database("readme")
    written = yaml.safe_load(text)
    project = make_project("shop")
    project.configure("replicator:litestream", {"address": here.host.address})

    def write(prefix: str) -> None:
        [orders] = written["resources"].values()
        assert orders["properties"]["source"]["uri"] in (DATABASE, f"sqlite://{here.host.database('readme')}")
        orders["properties"]["source"]["uri"] = f"sqlite://{here.host.database('readme')}"
        orders["properties"]["destination"]["uri"] = here.s3.url(BUCKET, prefix)
        project.write_yaml({key: written[key] for key in ("resources", "outputs")})

    assert written["resources"]["orders"]["properties"]["destination"]["uri"] == PREFIX
    write("readme")
    printed = words(project.preview().stdout)
    assert all(words(line) in printed for line in first.splitlines())
    project.up("--skip-preview")
    write("elsewhere")
    printed = words(project.preview().stdout)
    head, warning, tail = later.partition("    warning:")[0], *re.split(r"(?=^Resources:)", later, flags=re.MULTILINE)
    assert words(warning.partition("warning:")[2]) in printed
    assert all(words(line) in printed for line in [*head.splitlines(), *tail.splitlines()])

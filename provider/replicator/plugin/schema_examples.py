"""The examples in the schema's descriptions: each is written in YAML, and translated by `make sdk`."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).with_name("examples")
TRANSLATED = FOLDER / "translated.json"
"""The programs by name and language, as Pulumi's own generators made them."""

LANGUAGES = ("typescript", "python", "go", "yaml")


def sources() -> dict[str, str]:
    """Return the YAML programs by the name of the resource or function that they show; the first line is a title."""
    return {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.yaml"))}


def example(name: str) -> str:
    """Return the section of a description that shows a resource or function in every language; empty where there is none."""
    source = FOLDER / f"{name}.yaml"
    if not source.exists():
        return ""
    title, _, program = source.read_text("utf-8").partition("\n")
    blocks = {**json.loads(TRANSLATED.read_text("utf-8")).get(name, {}), "yaml": program}
    code = "\n\n".join(f"```{word}\n{blocks[word].strip()}\n```" for word in LANGUAGES if word in blocks)
    return f"""\
{{{{% examples %}}}}
## Example Usage
{{{{% example %}}}}
### {title.removeprefix("# ")}

{code}
{{{{% /example %}}}}
{{{{% /examples %}}}}"""

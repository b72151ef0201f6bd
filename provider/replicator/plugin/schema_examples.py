"""The examples in the schema's descriptions, written in YAML, and translated by `make sdk`."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).with_name("examples")
TRANSLATED = FOLDER / "translated.json"
"""The programs by name and language, as Pulumi's own generators translated them."""

LANGUAGES = ("typescript", "python", "go", "yaml")


def sources() -> dict[str, str]:
    """Return the YAML programs, by the name of their resource or function; the first line is a title."""
    return {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.yaml"))}


def example(name: str) -> str:
    """Return the section with a resource's or function's example in every language; empty without an example."""
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

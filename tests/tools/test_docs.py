"""Pages that are made from the code are fresh."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from replicator.capabilities import TABLE

from tools import docs, reference

PAGES = docs.pages()
SCHEMA = json.loads((docs.ROOT / "schema.json").read_text("utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(docs.ROOT)))
def test_a_generated_page_is_fresh(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path], "run: make docs"


def test_the_readme_marks_what_is_planned() -> None:
    text = docs.short_table()
    assert all(f"| {name} |" in text and "planned" in text for name in docs.PLANNED)
    for name, moves in docs.PLANNED.items():
        sources, _, destinations = moves.partition(" → ")
        planned = {(one, other) for one in sources.split(", ") for other in destinations.split(", ")}
        assert name not in TABLE or not planned & TABLE[name].pairs


def test_each_resource_and_function_has_a_page_and_no_page_is_left_over() -> None:
    tokens = [*SCHEMA["resources"], *SCHEMA["functions"]]
    wanted = {f"{token.rpartition(':')[2]}.md" for token in tokens} | {"README.md", "types.md"}
    assert {path.name for path in (docs.ROOT / "docs" / "reference").iterdir()} == wanted


@pytest.mark.parametrize("token", [*SCHEMA["resources"], *SCHEMA["functions"]])
def test_a_page_tells_all_that_the_schema_does(token: str) -> None:
    item = SCHEMA["resources"].get(token) or SCHEMA["functions"][token]
    page = reference.pages(SCHEMA)[f"{token.rpartition(':')[2]}.md"]
    sides = (
        item.get("inputProperties") or item["inputs"]["properties"],
        item.get("properties") or item["outputs"]["properties"],
    )
    for name, entry in (sides[0] | sides[1]).items():
        assert f"| `{name}` |" in page
        assert entry["description"].partition(" Default:")[0] in page
    for language in reference.LANGUAGES.values():
        assert page.count(f"### {language}\n") == 1
    assert "{{%" not in page
    for heading in re.findall(r"^## .+$", item["description"], re.MULTILINE):
        assert heading in page or heading == "## Example Usage"


def test_a_number_has_a_unit() -> None:
    for page in reference.pages(SCHEMA).values():
        rows = re.findall(r"^\| `\w+` \| number \|.*\| (.+) \|$", page, re.MULTILINE)
        assert [row for row in rows if not re.search(r"(?i)seconds|bytes|unit", row)] == []


def test_what_a_property_is_stands_in_its_row() -> None:
    item = {
        "inputProperties": {
            "key": {
                "type": "string",
                "description": "A key. Default: `a`.",
                "secret": True,
                "willReplaceOnChanges": True,
            },
            "ends": {"type": "array", "items": {"$ref": "#/types/p:index:End"}, "description": "Ends."},
        },
        "requiredInputs": ["ends"],
        "properties": {"many": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Bytes."}},
        "required": ["many"],
        "description": "It is one.\n\n## Import\n\nBy id.",
    }
    made = reference.pages({"types": {}, "functions": {}, "resources": {"p:index:One": item}, "provider": {}})["One.md"]
    assert "| `key` | string | | `a` | replaces | A key. **Secret.** |" in made
    assert "| `ends` | list of [End](types.md#end) | yes | | updates | Ends. |" in made
    assert "| `many` | map of number | | Bytes. |" in made
    assert made.endswith("\n\n## Import\n\nBy id.\n")

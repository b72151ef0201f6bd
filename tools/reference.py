"""The reference pages, made from schema.json alone: one for each resource and function, and one for the types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Item: TypeAlias = Mapping[str, Any]

LANGUAGES = {"yaml": "YAML", "python": "Python", "typescript": "TypeScript", "go": "Go"}
_PLAIN = {"pulumi.json#/Any": "any"}
_MARKER = re.compile(r"\{\{% /?examples? %\}\}\n?")
_EXAMPLES = re.compile(r"\{\{% examples %\}\}\n(.*)\{\{% /examples %\}\}", re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEFAULT = re.compile(r"\s*\bDefault: (`[^`]+`)\.")

TYPES = "types.md"
"""The page of the types that the others share."""


@dataclass(frozen=True, slots=True)
class Text:
    """A description of the schema in its parts, all Markdown.

    :param prose: what it is, and what to know about it.
    :param title: what the example shows; empty where there is none.
    :param programs: the example by language.
    :param sections: what follows under headings of its own.
    """

    prose: str
    title: str
    programs: Mapping[str, str]
    sections: str

    @classmethod
    def of(cls, description: str) -> Text:
        """Take a description apart."""
        found = _EXAMPLES.search(description)
        shown = _MARKER.sub("", found[1]) if found else ""
        rest = _EXAMPLES.sub("", description)
        before, heading, after = rest.partition("\n## ")
        title = re.search(r"^### (.+)$", shown, re.MULTILINE)
        programs = {word: text for word, text in _BLOCK.findall(shown) if word in LANGUAGES}
        prose = re.sub(r"\n{3,}", "\n\n", before).strip()
        return cls(prose, title[1] if title else "", programs, (heading + after).strip())


def pages(schema: Item) -> dict[str, str]:
    """Every page by its file name."""
    found = {f"{_name(token)}.md": _resource(token, item) for token, item in schema["resources"].items()}
    found |= {f"{_name(token)}.md": _function(token, item) for token, item in schema["functions"].items()}
    return {"README.md": _index(schema), **found, TYPES: _types(schema)}


def _index(schema: Item) -> str:
    lines = ["# Reference", "", "What a program can declare and call, made from `schema.json`.", ""]
    for title, group in (("Resources", "resources"), ("Functions", "functions")):
        lines += [f"## {title}", ""]
        for token, item in schema[group].items():
            first = re.split(r"(?<=\.)\s", Text.of(item["description"]).prose, maxsplit=1)[0]
            lines.append(f"- [{_name(token)}]({_name(token)}.md): {first}")
        lines.append("")
    lines += ["## Types", "", f"[{TYPES}]({TYPES}) has the objects and the words that they share.", ""]
    lines += ["## Names", ""]
    lines += [
        "Names are those of YAML and TypeScript. Python writes them in snake_case (`wait_for`), Go in PascalCase",
        "(`WaitFor`). Words such as `caught_up` are the same everywhere; the SDKs have constants for them.",
    ]
    return "\n".join(lines) + "\n"


def _resource(token: str, item: Item) -> str:
    text = Text.of(item["description"])
    inputs, outputs = item["inputProperties"], item["properties"]
    made = {name: value for name, value in outputs.items() if name not in inputs}
    return _page(
        token,
        text,
        "## Inputs",
        "",
        *_changes(inputs),
        *_inputs(inputs, item.get("requiredInputs", ()), changes=True),
        "",
        "## Outputs",
        "",
        "All inputs, with defaults filled in, `id`, and:",
        "",
        *_outputs(made, item.get("required", ())),
        *(["", text.sections] if text.sections else []),
    )


def _function(token: str, item: Item) -> str:
    inputs, outputs = item["inputs"], item["outputs"]
    return _page(
        token,
        Text.of(item["description"]),
        "## Arguments",
        "",
        *_inputs(inputs["properties"], inputs.get("required", ()), changes=False),
        "",
        "## Result",
        "",
        outputs["description"],
        "",
        *_outputs(outputs["properties"], outputs.get("required", ())),
    )


def _page(token: str, text: Text, *rest: str) -> str:
    lines = [f"# {_name(token)}", "", f"`{token}`", "", text.prose, ""]
    if text.programs:
        lines += ["## Example", "", f"{text.title}.", ""]
    for word, title in LANGUAGES.items():
        if word in text.programs:
            lines += [f"### {title}", "", f"```{word}", text.programs[word].rstrip(), "```", ""]
    return "\n".join([*lines, *rest]) + "\n"


def _types(schema: Item) -> str:
    used = _uses(schema)
    objects = {token: item for token, item in schema["types"].items() if "enum" not in item}
    enums = {token: item for token, item in schema["types"].items() if "enum" in item}
    lines = ["# Types", "", "Where one of these is an answer, a property that is not required may be absent.", ""]
    lines += ["## Objects", ""]
    for token, item in objects.items():
        lines += [f"### {_name(token)}", "", item["description"], "", f"Used by {_listed(used[token])}.", ""]
        lines += [*_fields(item["properties"], item.get("required", ())), ""]
    lines += ["## Words", ""]
    for token, item in enums.items():
        lines += [f"### {_name(token)}", "", item["description"], "", f"Used by {_listed(used[token])}.", ""]
        lines += [*_head("word", "meaning"), *_words(item), ""]
    return "\n".join(lines).rstrip().replace(f"]({TYPES}#", "](#") + "\n"


def _inputs(properties: Item, required: Iterable[str], *, changes: bool) -> Iterator[str]:
    titles = ["name", "type", "required", "default", *(["a change"] if changes else []), "what it is"]
    yield from _head(*titles)
    for name, item in properties.items():
        default = _DEFAULT.search(item["description"])
        change = ["replaces" if item.get("willReplaceOnChanges") else "updates"] if changes else []
        yield _row(
            f"`{name}`",
            _type(item),
            "yes" if name in required else "",
            default[1] if default else "",
            *change,
            _what(item),
        )


def _outputs(properties: Item, always: Iterable[str]) -> Iterator[str]:
    yield from _head("name", "type", "may be absent", "what it is")
    for name, item in properties.items():
        yield _row(f"`{name}`", _type(item), "" if name in always else "yes", _what(item))


def _fields(properties: Item, required: Iterable[str]) -> Iterator[str]:
    yield from _head("name", "type", "required", "what it is")
    for name, item in properties.items():
        yield _row(f"`{name}`", _type(item), "yes" if name in required else "", _what(item))


def _words(enum: Item) -> Iterator[str]:
    for value in enum["enum"]:
        yield _row(f"`{value['value']}`", value["description"])


def _changes(inputs: Item) -> Iterator[str]:
    yield "A change that `replaces` makes another resource in place of this one."
    if not all(item.get("willReplaceOnChanges") for item in inputs.values()):
        yield "What an update does to the data, the preview says, and [the table of the backends](../capabilities.md)."
    yield ""


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield f"|{'---|' * len(titles)}"


def _row(*cells: str) -> str:
    return re.sub(" +", " ", f"| {' | '.join(cells)} |")


def _what(item: Item) -> str:
    text = _DEFAULT.sub("", item["description"])
    return f"{text} **Secret.**" if item.get("secret") else text


def _type(item: Item) -> str:
    """The type as Markdown, with a link where it has a place of its own."""
    if "oneOf" in item:
        return " or ".join(_type(member) for member in item["oneOf"])
    if "$ref" in item:
        reference = item["$ref"]
        name = _name(reference)
        return _PLAIN.get(reference) or f"[{name}]({TYPES}#{name.lower()})"
    if item["type"] == "array":
        return f"list of {_type(item['items'])}"
    if item["type"] == "object":
        return f"map of {_type(item['additionalProperties'])}"
    return str(item["type"])


def _uses(schema: Item) -> dict[str, list[str]]:
    """Who names a type, as links, by its token."""
    found: dict[str, dict[str, None]] = {token: {} for token in schema["types"]}
    places = {f"[{_name(token)}](#{_name(token).lower()})": item for token, item in schema["types"].items()}
    for group in ("resources", "functions"):
        places |= {f"[{_name(token)}]({_name(token)}.md)": item for token, item in schema[group].items()}
    places["the provider's configuration"] = schema["provider"]
    for place, item in places.items():
        for reference in _references(item):
            if reference in found:
                found[reference][place] = None
    return {token: list(names) for token, names in found.items()}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "$ref":
                yield item.removeprefix("#/types/")
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _name(token: str) -> str:
    return token.rpartition(":")[2]

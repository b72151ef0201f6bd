"""The tree of errors: complete in its own drawing, with stable codes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator import errors
from replicator.errors import Category, ReplicatorError

PACKAGE = Path(errors.__file__).parent
CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, ReplicatorError) and found is not ReplicatorError
]
DRAWN = re.findall(r"^(?:│   )?[├└]── (\w+)\s+(RPL-[A-Z]+-[A-Z]+)\s+(\S.*)$", errors.__doc__ or "", re.MULTILINE)


def test_the_drawing_shows_every_error() -> None:
    assert sorted((name, code) for name, code, _ in DRAWN) == sorted((cls.__name__, cls.code) for cls in CLASSES)
    assert len(CLASSES) > 20


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert ReplicatorError.code not in codes


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_has_a_code_a_category_a_cause_and_a_way_out(cls: type[ReplicatorError]) -> None:
    assert re.fullmatch(r"RPL-[A-Z]+-[A-Z]+", cls.code)
    assert isinstance(cls.category, Category)
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    assert len(paragraphs) == 2, "its cause and the way out"
    assert [text for text in paragraphs if not text.endswith(".")] == []


def used(tree: ast.AST) -> Iterator[str]:
    """The names that code makes something of: not what it imports, catches, tests for or writes into a signature."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ExceptHandler():
                yield from used(ast.Module(node.body, []))
            case ast.Call(func=ast.Name("isinstance" | "issubclass" | "suppress")):
                continue
            case ast.Name(id=name):
                yield name
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from used(ast.Module([*node.body], []))
            case ast.AnnAssign(value=value):
                yield from used(ast.Expression(value)) if value else ()
            case _:
                yield from used(node)


RAISED = {
    name
    for path in PACKAGE.rglob("*.py")
    if path.name != "errors.py"
    for name in used(ast.parse(path.read_text("utf-8")))
}


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_is_raised_somewhere(cls: type[ReplicatorError]) -> None:
    """A code that nothing raises is a promise that nobody keeps."""
    assert cls.__name__ in RAISED


def test_the_catalogue_has_every_code_that_the_source_names_and_no_other() -> None:
    root = Path(__file__).parents[1]
    sources = [*PACKAGE.rglob("*.py"), *(root / "tools").rglob("*.sh")]
    named = {code for path in sources for code in re.findall(r"RPL-[A-Z]+-[A-Z]+", path.read_text("utf-8"))}
    page = (root / "docs" / "errors.md").read_text("utf-8")
    assert set(re.findall(r"^## (\S+)$", page, re.MULTILINE)) == named


def test_to_catch_an_error_is_not_to_raise_it() -> None:
    code = """
from errors import A, B, C, D, E, F
def f(a: A) -> A:
    b: B
    try:
        if isinstance(a, C): return E("text")
    except D:
        raise F
"""
    assert set(used(ast.parse(code))) == {"E", "F"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "it broke [RPL-STREAM-INVALID]"),
        ({"stream": "orders"}, "stream 'orders': it broke [RPL-STREAM-INVALID]"),
        ({"property": "source.uri"}, "source.uri: it broke [RPL-STREAM-INVALID]"),
        ({"fix": "mend it"}, "it broke [RPL-STREAM-INVALID]\n  → mend it"),
        (
            {"stream": "orders", "property": "mode", "fix": "mend it"},
            "stream 'orders': mode: it broke [RPL-STREAM-INVALID]\n  → mend it",
        ),
    ],
)
def test_the_text_for_people(given: dict[str, str], expected: str) -> None:
    assert str(errors.InvalidStream("it broke", **given)) == expected

"""The tree of errors: complete in its own drawing, with stable codes."""

from __future__ import annotations

import inspect
import re
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
def test_an_error_has_a_code_a_category_and_a_sentence(cls: type[ReplicatorError]) -> None:
    assert re.fullmatch(r"RPL-[A-Z]+-[A-Z]+", cls.code)
    assert isinstance(cls.category, Category)
    assert cls.__doc__
    assert cls.__doc__.endswith(".")


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_is_raised_somewhere(cls: type[ReplicatorError]) -> None:
    """A code that nothing raises is a promise that nobody keeps."""
    texts = (path.read_text("utf-8") for path in PACKAGE.rglob("*.py") if path.name != "errors.py")
    assert any(re.search(rf"\b{cls.__name__}\b", text) for text in texts)


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

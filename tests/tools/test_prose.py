"""What the rules for prose find in each kind of source, what they leave alone, and how the baseline shrinks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import prose
from tools.gobuild import BuildError, Cache, cache_root, complete
from tools.prose import Finding, Text

WORDS_25 = " ".join(["The agent keeps", *["a list of it and"] * 4, "one copy."])
LONG = WORDS_25.replace("one copy.", "one more copy.")
BAD = f"Mend the database. {LONG} Restart the the agent. The copy will go on  then."
FOUND = ["RepeatedWord", "SentenceLength", "Spacing", "Words", "Words"]
CODE = "`mend` and `--go on` are `the` `the` words of [code](https://example.com/unwell/anew) and https://example.com/mend."


def test_the_sentences_have_25_and_26_words() -> None:
    assert [len(text.split()) for text in (WORDS_25, LONG)] == [25, 26]


@pytest.fixture(scope="module")
def vale() -> Path:
    cache = Cache(cache_root(os.environ))
    if not complete(cache.folder(prose.MODULE), prose.MODULE.files):
        pytest.skip("Vale is not built: make check")
    return prose.vale(cache)


def rules(vale: Path, *pieces: Text) -> list[str]:
    return sorted(found.rule for found in prose.check(vale, pieces))


def at(path: Path, text: str) -> Text:
    path.write_text(text, "utf-8")
    return prose.page(path)


@pytest.mark.parametrize(
    "form",
    ["{}", "# A page\n\n## {}\n", "- {}\n- more\n", "| a | b |\n|---|---|\n| 1 | {} |\n", "> {}\n", "1. {}\n"],
    ids=["paragraph", "heading", "item", "cell", "quote", "step"],
)
def test_a_page(vale: Path, tmp_path: Path, form: str) -> None:
    assert rules(vale, at(tmp_path / "page.md", form.format(BAD))) == FOUND
    assert rules(vale, at(tmp_path / "page.md", form.format(WORDS_25))) == []


def test_a_description_of_the_schema(vale: Path) -> None:
    example = "{{% examples %}}\n```yaml\nmend:  anew # go on  and mend the the\n```\n{{% /examples %}}"
    schema = {"types": {"Stream": {"properties": {"name": {"description": f"{BAD}\n\n{example}"}}}}}
    found = prose.check(vale, prose.descriptions("schema.json", schema))
    assert sorted(each.rule for each in found) == FOUND
    assert {each.place for each in found} == {"/types/Stream/properties/name/description"}
    schema["types"]["Stream"]["properties"]["name"]["description"] = f"{WORDS_25}\n\n{example}"
    assert prose.check(vale, prose.descriptions("schema.json", schema)) == []


@pytest.mark.parametrize("form", ["{} [RPL-A-B]\n  → run it", "no such file [RPL-A-B]\n  → {}"], ids=["message", "fix"])
def test_an_error(vale: Path, form: str) -> None:
    found = prose.check(vale, prose.errors("errors.json", {"RPL-A-B": form.format(BAD)}))
    assert sorted(each.rule for each in found) == FOUND
    assert {each.place for each in found} == {"RPL-A-B"}
    assert prose.check(vale, prose.errors("errors.json", {"RPL-A-B": form.format(WORDS_25)})) == []
    two = WORDS_25.replace("one copy.", f"/srv/agent.toml. {WORDS_25}")
    assert prose.check(vale, prose.errors("errors.json", {"RPL-A-B": form.format(two)})) == []


def test_what_an_error_quotes_is_no_prose(vale: Path) -> None:
    words = " ".join(f"'{word}'" for word in ["mend it anew", *"abcdefgh"])
    texts = {
        "RPL-A-B": f"stream 'mend': source.uri: /srv/mend/unwell has {words} [RPL-A-B]\n  → see s3://mend/anew?mend=mend",
        "RPL-A-C": "destination.authRef: no answer from https://mend.example [RPL-A-C]\n  → add:\n[[mend]]\nunwell = 1",
    }
    assert prose.check(vale, prose.errors("errors.json", texts)) == []


def test_a_docstring_of_the_catalogue(vale: Path) -> None:
    module = f'class Wrong(Exception):\n    """It is wrong.\n\n    {BAD}\n    """\n\n    text = "mend"\n'
    found = prose.check(vale, prose.docstrings("errors.py", module))
    assert sorted(each.rule for each in found) == FOUND
    assert {(each.place, each.line) for each in found} == {("Wrong", 4)}


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"Text.\n\n```\n{BAD}\n```\n",
        f"Text.\n\n    {BAD}\n",
        f"<!-- {BAD} -->\n",
        f"`{LONG}` is one word.",
        "The words recommend, neighbourhood, Go on PATH and egg are allowed.",
    ],
    ids=["span", "block", "indented", "comment", "long span", "parts of words"],
)
def test_what_is_no_prose_is_left_alone(vale: Path, tmp_path: Path, text: str) -> None:
    assert rules(vale, at(tmp_path / "page.md", text)) == []


@pytest.mark.parametrize(
    "begin", ["`The agent` daemon", "`The` **`agent`**", "(The agent)", "The *agent*", "The\nagent"]
)
@pytest.mark.parametrize("before", ["", "Text. ", "See `code`. "])
def test_a_sentence_is_measured_from_its_start(vale: Path, tmp_path: Path, before: str, begin: str) -> None:
    for sentence, found in ((LONG, ["SentenceLength"]), (WORDS_25, [])):
        text = f"{before}{sentence.replace('The agent', begin, 1)}"
        assert rules(vale, at(tmp_path / "page.md", text)) == found, text


def test_each_finding_has_its_line(vale: Path, tmp_path: Path) -> None:
    piece = at(tmp_path / "page.md", "# Page\n\nIt is right.\nIt is unwell.\n\n| a |\n|---|\n| mend |\n")
    assert [(found.line, found.column) for found in prose.check(vale, [piece])] == [(4, 7), (8, 3)]
    assert str(prose.check(vale, [piece])[0]) == (
        f"{tmp_path}/page.md:4:7: Write 'unhealthy' instead of 'unwell'. [Words]"
    )


def test_the_baseline_hides_its_sources_and_may_not_stay() -> None:
    def finding(source: str) -> Finding:
        return Finding(source, "", 1, 1, "Words", "Write it.")

    lines = prose.report([finding("old.md"), finding("new.md")], {"old.md", "clean.md"})
    assert lines == [
        "new.md:1:1: Write it. [Words]",
        "tools/vale/baseline.txt: clean.md has no finding left; take it out",
    ]
    assert prose.report([finding("old.md")], {"old.md"}) == []


def test_the_baseline_names_sources() -> None:
    assert prose.baseline() <= {piece.source for piece in prose.texts()}


def test_every_kind_of_source_is_read() -> None:
    sources = {piece.source for piece in prose.texts()}
    assert sources > {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md", "docs/reference/Stream.md"}
    assert sources > {"schema.json", "tests/golden/errors.json", "provider/replicator/errors.py"}


def test_broken_rules_are_an_error(vale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / ".vale.ini"
    config.write_text("StylesPath = nowhere\nMinAlertLevel = error\n[*.md]\nBasedOnStyles = Replicator\n")
    monkeypatch.setattr(prose, "CONFIG", config)
    with pytest.raises(BuildError, match="Vale ended with status 2"):
        prose.check(vale, [Text("a.md", "", "Text.")])

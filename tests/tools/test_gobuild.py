"""What the cache keeps by content: made once, and complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.gobuild import BuildError, Cache, GoModule, content_key

FAKE_GO = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\necho %s\\n' "$CGO_ENABLED $CC $CXX" > "$2"linter
chmod 755 "$2"linter
"""


def test_what_is_kept_is_made_once_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "cache"), []

    def make(folder: Path) -> None:
        (folder / "part").write_text("half")
        made.append(folder)
        if len(made) == 1:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.keep("kind", "key", make)
    assert not list((tmp_path / "cache").rglob("part"))
    kept = cache.keep("kind", "key", make)
    assert cache.keep("kind", "key", make) == kept == tmp_path / "cache" / "kind" / "key"
    assert (kept / "part").read_text() == "half"
    assert len(made) == 2
    assert cache.keep("kind", "other", make) != kept


def test_a_key_follows_names_contents_and_facts_and_no_place(tmp_path: Path) -> None:
    def key(where: str, name: str, text: str, *facts: str) -> str:
        (tmp_path / where / "sdk").mkdir(parents=True)
        (tmp_path / where / "sdk" / name).write_text(text)
        return content_key([tmp_path / where / "sdk"], *facts)

    first = key("a", "one", "text", "3.11")
    assert key("b", "one", "text", "3.11") == first
    others = [key("c", "two", "text", "3.11"), key("d", "one", "texts", "3.11"), key("e", "one", "text", "3.12")]
    assert len({first, *others}) == 4


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake `go`, a module, and a folder of programs that is the whole PATH."""
    for name in ("bin", "module"):
        (tmp_path / name).mkdir()
    (tmp_path / "module" / "go.mod").write_text("module x\n\ngo 1.26.6\n\ntool example.com/linter\n")
    (tmp_path / "module" / "go.sum").touch()
    (tmp_path / "go").write_text(FAKE_GO)
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def built(machine: Path, *, native: bool) -> str:
    """The variables of a build, as the fake `go` saw them."""
    module, cache = GoModule(machine / "module", "soon", native=native), Cache(machine / "cache")
    with cache.locked():
        return (cache.build(module, machine / "go") / "linter").read_text().splitlines()[-1]


def install(machine: Path, *names: str) -> None:
    for name in names:
        (machine / "bin" / name).write_text("#!/bin/sh\n")
        (machine / "bin" / name).chmod(0o755)


def test_a_native_module_is_built_with_the_compilers_that_are_there(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "bin" / "chmod").symlink_to("/bin/chmod")
    assert built(machine, native=False) == "echo 0  "
    install(machine, "clang", "clang++")
    assert built(machine, native=True) == "echo 1 clang clang++"
    (machine / "module" / "go.sum").write_text("changed\n")
    monkeypatch.setenv("CC", "own-cc")
    assert built(machine, native=True) == "echo 1 own-cc clang++"


def test_a_native_module_without_a_compiler_says_what_to_install(machine: Path) -> None:
    install(machine, "gcc")
    with pytest.raises(BuildError, match=r"linter needs a C and a C\+\+ compiler; there is no g\+\+ and .* make deps"):
        built(machine, native=True)
    assert not list((machine / "cache").rglob("linter"))

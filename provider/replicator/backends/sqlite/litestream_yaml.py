"""A parser of litestream.yml that keeps the line of each setting, and expands `$NAME` as litestream does.

litestream expands the text before it parses it. Here the text is parsed first, so that a secret keeps its placeholder
and each setting its line. A file that only the other order can read is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replicator.errors import InvalidConfig

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@dataclass(frozen=True, slots=True)
class Setting:
    """One node of the file.

    :param path: as in `dbs[0].replica.url`.
    :param line: counted from 1.
    """

    path: str
    line: int
    node: yaml.Node

    @property
    def raw(self) -> str:
        """Return a scalar as written; raise `InvalidConfig` where it is none."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.invalid("holds several values where one is expected")
        return str(self.node.value)

    def variable(self) -> str | None:
        """Return the name if the whole value is one `${NAME}`."""
        match = _VARIABLE.fullmatch(self.raw)
        return match and (match[1] or match[2])

    def expand(self, environ: Mapping[str, str]) -> str:
        """Return the value with variables expanded; raise `InvalidConfig` for an unset one, or a `$` without a name."""

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in environ:
                raise self.invalid(
                    f"names the variable {name}, which is not set here", "run it with what litestream had"
                )
            return environ[name]

        if "$" in _VARIABLE.sub("", self.raw):
            raise self.invalid("holds a $ that names no variable")
        return _VARIABLE.sub(value, self.raw)

    def entries(self) -> dict[str, Setting]:
        """Return the settings below this one; raise `InvalidConfig` where it is not a mapping, or has a key twice."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:null":
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.invalid("is not a list of settings")
        found: dict[str, Setting] = {}
        for key, node in self.node.value:
            name = str(key.value)
            setting = Setting(f"{self.path}.{name}" if self.path else name, key.start_mark.line + 1, node)
            if name in found:
                raise setting.invalid("stands there twice")
            found[name] = setting
        return found

    def items(self) -> list[Setting]:
        """Return the entries of a list; raise `InvalidConfig` where it is not a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.invalid("is not a list")
        return [
            Setting(f"{self.path}[{place}]", node.start_mark.line + 1, node)
            for place, node in enumerate(self.node.value)
        ]

    def invalid(self, problem: str, fix: str | None = None) -> InvalidConfig:
        """Return the error for this setting. It never holds the value, which may be a secret."""
        return InvalidConfig(f"line {self.line}: {problem}", property=self.path, fix=fix or "correct the file")


def read(file: Path) -> Setting:
    """Return the whole file as one setting; raise `InvalidConfig` where it cannot be read."""
    try:
        node: Any = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidConfig(f"{file} cannot be read: {why}", fix="give the file that litestream reads") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidConfig(
            f"{file}{where}: {getattr(error, 'problem', None) or 'it is not YAML'}",
            fix='correct the file; a ${NAME} inside { } has to stand in quotes: "${NAME}"',
        ) from None
    if node is None:
        raise InvalidConfig(f"{file} is empty", fix="give the file that litestream reads")
    return Setting("", 1, node)

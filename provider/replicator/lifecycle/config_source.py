"""The source of the provider's configuration, for hints about where to correct it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from replicator.model import Model

PACKAGE = "replicator"
"""The namespace of the configuration."""


def variable_of(key: str) -> str:
    """Return the environment variable of a setting: `kafkaMirror` is in `REPLICATOR_KAFKA_MIRROR`."""
    return f"{PACKAGE}_{re.sub('(?=[A-Z])', '_', key)}".upper()


class ConfigSource(Model):
    """The source of each setting.

    :param resource: the provider resource of the program that holds the settings; `None` for the stack's configuration.
    :param variables: settings that an environment variable gave.
    :param secrets: settings that are secret.
    """

    resource: str | None = None
    variables: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()

    def hint(self, key: str, value: Any) -> str:
        """Return the command or code that gives a setting this value.

        It sets a complete block: `pulumi config set --path` would replace one that was written as JSON text.
        """
        text = value if isinstance(value, str) else json.dumps(value)
        if key in self.variables:
            return f"export {variable_of(key)}={shlex.quote(text)}"
        if self.resource is not None:
            return f"in the program, change {key} of the provider resource {self.resource!r}, as in {text}"
        secret = "--secret " if key in self.secrets else ""
        return f"pulumi config set {secret}{PACKAGE}:{key} {shlex.quote(text)}"

    def removal(self, key: str) -> str:
        """Return the command or code that removes a setting."""
        if self.resource is not None:
            return f"in the program, remove {key} from the provider resource {self.resource!r}"
        return f"pulumi config rm {PACKAGE}:{key}"

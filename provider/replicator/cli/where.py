"""Where a command finds the engines: by its options, the stack's configuration, and the environment."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from replicator.cli.clients import block_of, listens
from replicator.cli.options import DEFAULT_BACKEND
from replicator.cli.output import note
from replicator.cli.stack import StackConfig, read_stack

if TYPE_CHECKING:
    from replicator.backends import Backend
    from replicator.backends.settings import BackendConfig
    from replicator.lifecycle.config import ProviderConfig
    from replicator.lifecycle.connections import Connections, StreamId

_HINTED = re.compile(r"\breplicator (status|list|describe|wait|logs|pause|resume|replays?|import)\b")


class Where:
    """The options of one command that say where engines are.

    :param changes: the command changes a stream. It is refused, and not sent to another engine, where the configuration
        of the stack cannot be read.
    """

    def __init__(
        self, backend: str | None, address: str | None, stack: str | None = None, *, changes: bool = False
    ) -> None:
        self.backend = backend
        self.address = address
        self._stack = stack
        self._changes = changes
        self._noted: set[str] = set()

    def hint(self, text: str) -> str:
        """Return a hint whose commands work as pasted: they get the options that lead to the same engine."""
        given = {"--backend": self.backend, "--address": self.address, "--stack": self._stack}
        options = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
        return _HINTED.sub(lambda found: found[0] + options, text)

    @contextmanager
    def hints(self) -> Iterator[None]:
        """Do so with the hints of errors."""
        from replicator.errors import ReplicatorError

        try:
            yield
        except ReplicatorError as error:
            error.fix = error.fix and self.hint(error.fix)
            raise

    @cached_property
    def stack(self) -> StackConfig | None:
        """The stack whose project this folder belongs to; `None` also where the options say all that there is."""
        from replicator.backends import REGISTRY

        complete = self.address is not None and REGISTRY[self.backend or DEFAULT_BACKEND].via_agent
        return None if complete and self._stack is None else read_stack(self._stack, needed=self._changes)

    def connections(self, at: StreamId | None = None, *, everywhere: bool = False) -> Connections:
        """Return connections to the engines that the options select.

        :param at: only to the one that has this stream.
        :param everywhere: to all that are configured.
        :raises InvalidConfig: the configuration is invalid, or has no address.
        """
        from replicator.lifecycle.connections import Connections

        return Connections(self._config(at, everywhere=everywhere))

    def address_of(self, at: StreamId) -> str:
        """Return the address that manages a stream; raise `InvalidConfig` without one."""
        return self._config(at, everywhere=False).backends[at.backend].address or ""

    def _config(self, at: StreamId | None, *, everywhere: bool) -> ProviderConfig:
        from replicator.backends import REGISTRY
        from replicator.lifecycle.config import ProviderConfig, configured

        kind = at.backend if at is not None else self.backend
        if kind is None and self.address is None and (everywhere or self._stack_has_backends()):
            whole = configured(self._settings(REGISTRY.values()), environ=os.environ)
            here = {each.kind: each.settings() for each in _agents_here()} if self.stack else {}
            return self._told(whole.model_copy(update={"backends": {**here, **whole.backends}}))
        backend = REGISTRY[kind or DEFAULT_BACKEND]
        settings = {} if self.address and backend.via_agent else self._settings([backend], needed=not self.address)
        if at is None and self.address is None:
            block = configured(settings, environ=_variable(backend)).block(backend)
            if block.regions:
                return self._told(ProviderConfig(backends={backend.kind: block}))
        region = at.region if at is not None else "default"
        return self._told(
            ProviderConfig(backends={backend.kind: block_of(backend.kind, self.address, region, settings)})
        )

    def _stack_has_backends(self) -> bool:
        from replicator.backends import REGISTRY

        keys = {backend.config_key for backend in REGISTRY.values()}
        return self.stack is not None and bool(keys & (self.stack.settings.keys() | self.stack.secret))

    def _settings(self, backends: Iterable[Backend], *, needed: bool = False) -> Mapping[str, Any]:
        """Return what the stack configures of some backends.

        :param needed: without it, the command cannot run.
        """
        from replicator.errors import InvalidConfig

        if self.stack is None:
            return {}
        wanted = {backend.config_key: backend for backend in backends}
        for key in sorted(self.stack.secret & wanted.keys()):
            backend = wanted[key]
            if _variable(backend):
                continue
            text = f"replicator:{key} of {self.stack} is secret, and is not read"
            fix = f"--backend {backend.kind} --address {backend.example}"
            if needed or self._changes:
                raise InvalidConfig(text, property="address", fix=f"give the address: {fix}")
            self._note(f"{text}; to reach {backend.kind}, add {fix}")
        return {key: value for key, value in self.stack.settings.items() if key in wanted}

    def _told(self, config: ProviderConfig) -> ProviderConfig:
        """Tell which engines are asked, if a stack configures any."""
        from replicator.backends import REGISTRY

        backends = [REGISTRY[kind] for kind in config.kinds()]
        if (
            self.stack is not None
            and self.address is None
            and any(backend.config_key in self.stack.settings for backend in backends)
        ):
            places = [f"{backend.kind} at {_places(config.block(backend))}" for backend in backends]
            self._note(f"{self.stack}: {'; '.join(places)}")
        return config

    def _note(self, text: str) -> None:
        """Print a note once, however often the command asks."""
        if text not in self._noted:
            self._noted.add(text)
            note(text)


def _variable(backend: Backend) -> dict[str, str]:
    """Return the environment variable of a backend, if it is set."""
    from replicator.lifecycle.config import all_settings

    name = all_settings()[backend.config_key].variable
    return {name: text} if (text := os.environ.get(name)) else {}


def _places(block: BackendConfig) -> str:
    addresses = {**block.regions, **({"default": block.address} if block.address else {})}
    return ", ".join(dict.fromkeys(addresses.values())) or "this host's agent"


def _agents_here() -> list[Backend]:
    """Return the backends of this host's own agent, where one listens: they need no configuration."""
    from replicator.backends import REGISTRY
    from replicator.remote.address import default_socket

    if not listens(str(default_socket())):
        return []
    return [backend for backend in REGISTRY.values() if backend.default_address]

"""A plugin that makes the bare calls of Kafka Connect for each mirror, and nothing else.

What a provider costs over it is what it does beside these calls: checks, records, models. Nothing of `replicator` is in
here.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty

from bench.bare_connect import BareMirrors
from bench.floor_plugin import OUTPUTS, Nothing, pb, serve

SETTINGS = "BENCH_MIRRORS"
"""A variable with the path of a JSON object: `url` of the worker, `bootstrap` of the source, and `configs` by topic."""


class Mirrors(Nothing):
    """Every resource is a connector. Its configuration is given, by the topic that the program names."""

    def __init__(self) -> None:
        self._settings = json.loads(Path(os.environ[SETTINGS]).read_text())
        self._mirrors: BareMirrors | None = None

    @property
    def mirrors(self) -> BareMirrors:
        """The worker, from the first call on."""
        if self._mirrors is None:
            self._mirrors = BareMirrors(self._settings["url"], self._settings["bootstrap"], self._settings["configs"])
        return self._mirrors

    async def Create(self, request: Any, context: Any) -> Any:
        if request.preview:
            return pb.CreateResponse(properties=request.properties)
        (topic,) = request.properties["include"]
        name = await self.mirrors.create(self._settings["configs"][topic])
        request.properties.update(OUTPUTS)
        return pb.CreateResponse(id=name, properties=request.properties)

    async def Read(self, request: Any, context: Any) -> Any:
        await self.mirrors.look(request.id)
        return pb.ReadResponse(id=request.id, inputs=request.inputs, properties=request.properties)

    async def Delete(self, request: Any, context: Any) -> Any:
        await self.mirrors.delete(request.id)
        return Empty()


def main() -> None:
    asyncio.run(serve(Mirrors()))

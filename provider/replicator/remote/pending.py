"""Operations that outlast their request: the server answers with an id, under which the client asks again.

So no connection has to last as long as an upload, and the client learns the progress (`progress`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import Response

from replicator.errors import AgentFault
from replicator.progress import told_to
from replicator.remote.routes import ACCEPTED, GONE, PREFER_HEADER, Accepted

KEPT_FOR = 600.0
"""Seconds for which an unfetched answer is kept."""

MOST = 1000
"""The maximum number of operations that run, or whose answer is kept."""

_LONGEST = 30.0  # seconds that a request may wait
_WAIT = re.compile(r"\bwait=(\d{1,3})\b")


def wait_of(headers: Headers) -> float | None:
    """Return the seconds that a request is ready to wait; `None` for no limit."""
    preferred = headers.get(PREFER_HEADER, "")
    found = _WAIT.search(preferred)
    return min(float(found[1]), _LONGEST) if found and "respond-async" in preferred else None


@dataclass(eq=False)
class _Pending:
    task: asyncio.Task[Response] = field(init=False)
    text: str = ""
    ended_at: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self.changed.set()


class Pending:
    """The operations of one server whose answers have not been fetched."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_id: dict[str, _Pending] = {}

    async def begin(self, work: Coroutine[None, None, Response], wait: float) -> Response:
        """Run an operation. Return its answer, or after `wait` seconds the id under which to ask for it.

        Raise `AgentFault` if too many operations run; nothing has been done then.
        """
        self._sweep()
        if len(self._by_id) >= MOST:
            work.close()
            raise AgentFault(f"{MOST} operations already run at the agent", fix="run the command again in some minutes")
        pending = _Pending()
        with told_to(pending.hear):
            pending.task = asyncio.create_task(work)
        pending.task.add_done_callback(lambda _: setattr(pending, "ended_at", self._clock()))
        return await self._answer(secrets.token_hex(16), pending, wait)

    async def ask(self, id: str, wait: float) -> Response:
        """Return the answer to an operation, or its progress after `wait` seconds or when that changes."""
        pending = self._by_id.get(id)
        if pending is None:
            return Response(status_code=GONE)
        return await self._answer(id, pending, wait)

    async def _answer(self, id: str, pending: _Pending, wait: float) -> Response:
        news = asyncio.create_task(pending.changed.wait())
        try:
            await asyncio.wait([pending.task, news], timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the server stops
            pending.task.cancel()
            return await pending.task
        finally:
            news.cancel()
        if pending.task.done():
            self._by_id.pop(id, None)
            return pending.task.result()
        pending.changed.clear()
        self._by_id[id] = pending
        return Response(
            Accepted(operation=id, progress=pending.text).model_dump_json(), ACCEPTED, media_type="application/json"
        )

    def _sweep(self) -> None:
        """Forget unfetched answers: old ones, and all if there are too many."""
        now, full = self._clock(), len(self._by_id) >= MOST
        for id, pending in list(self._by_id.items()):
            if pending.ended_at is not None and (full or now - pending.ended_at > KEPT_FOR):
                del self._by_id[id]

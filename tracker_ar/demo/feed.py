"""Messages from the thread that tracks to the pages that watch."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator


class Feed:
    """A growing list of messages: any thread may `add` and `close`, any number of pages read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[str] = []
        self._closed = False
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add(self, message: str) -> None:
        """Append a message."""
        with self._lock:
            self._messages.append(message)
        self._wake()

    def close(self) -> None:
        """There will be no more: readers come to their end after the last message."""
        with self._lock:
            self._closed = True
        self._wake()

    async def read(self, after: int = 0, patience: float = 10.0) -> AsyncIterator[tuple[int, str | None]]:
        """Number (from 1) and text of every message after the first `after` ones, also those to come.

        None as text where there was none for `patience` seconds.
        """
        news = asyncio.Event()
        entry = (asyncio.get_running_loop(), news)
        with self._lock:
            self._waiting.add(entry)
        try:
            while True:
                news.clear()
                with self._lock:
                    messages, closed = self._messages[after:], self._closed
                for message in messages:
                    after += 1
                    yield after, message
                if closed:
                    return
                try:
                    await asyncio.wait_for(news.wait(), patience)
                except asyncio.TimeoutError:
                    yield after, None
        finally:
            with self._lock:
                self._waiting.discard(entry)

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for loop, news in waiting:
            with contextlib.suppress(RuntimeError):  # a loop that has ended has no readers
                loop.call_soon_threadsafe(news.set)

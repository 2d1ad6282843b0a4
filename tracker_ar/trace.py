"""Stages of a frame, named once where they happen. Whoever wants to know listens; without a listener a stage costs
less than a microsecond.

    with listening(meter):
        tracker.track(image)

A listener hears only its own thread. While one listens, nothing is replayed from a recorded graph, so that every
stage really happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol


class Listener(Protocol):
    """What `listening` takes."""

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Entered when the stage begins, left when it ends. Stages may lie within stages."""

    def note(self, name: str, value: Any) -> None:
        """A result of a stage, as the tracker itself uses it: not to be changed."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_SILENT = nullcontext()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every stage in here."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_heard() -> bool:
    """Whether anybody listens."""
    return _listener.get() is not None


def stage(name: str) -> AbstractContextManager[Any]:
    """What happens in here is the stage `name`."""
    listener = _listener.get()
    return _SILENT if listener is None else listener.stage(name)


def note(name: str, value: Any) -> None:
    """Tell of a result. Where it must be computed for this alone, ask `is_heard` first."""
    listener = _listener.get()
    if listener is not None:
        listener.note(name, value)

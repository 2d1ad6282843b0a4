"""The web application: the page, and what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tracker_ar.demo import examples
from tracker_ar.demo.clips import (
    CameraFrames,
    check_upload_size,
    decode_picture,
    open_files,
    receive_files,
    starting_at,
)
from tracker_ar.demo.feed import Feed
from tracker_ar.demo.guard import Guard, is_loopback, own_names
from tracker_ar.demo.job import preview_path
from tracker_ar.demo.limits import Limits, Refused
from tracker_ar.demo.sessions import Session, Sessions
from tracker_ar.errors import AlphaRefineError
from tracker_ar.places import PACKAGE
from tracker_ar.prediction import Tracker
from tracker_ar.video.overlay import COLOURS

STATIC = PACKAGE / "demo" / "static"
SWEEP_SECONDS = 10.0
JSON_BYTES = 4000  # of a request


def make_app(
    tracker: Tracker,
    about: str,
    host: str = "127.0.0.1",
    limits: Limits | None = None,
) -> Starlette:
    """The application. tracker: follows one video at a time. about: one line on what tracks, for the page.

    host: the name or address that the server listens on. Shutting down waits for open streams, which
    `app.state.pages.stop()` lets end.
    """
    pages = Pages(tracker, about, limits or Limits(), is_loopback(host))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(pages.sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await run_in_threadpool(pages.sessions.close)

    app = Starlette(
        routes=pages.routes(),
        middleware=[Middleware(Guard, names=own_names(host), loopback_only=is_loopback(host))],
        exception_handlers={
            AlphaRefineError: _in_words, HTTPException: _http_in_words, ClientDisconnect: _to_nobody,
            Exception: _bug_in_words},
        lifespan=lifespan,
    )
    app.state.pages = pages
    return app


class Pages:
    """The handlers of all requests. They run in one thread, the event loop's."""

    def __init__(
        self, tracker: Tracker, about: str, limits: Limits, local: bool
    ) -> None:
        """local: whether only this computer can reach the server."""
        self.limits = limits
        self.sessions = Sessions(limits, tracker)
        self.closing = False
        self._about = about
        self._local = local

    def routes(self) -> list[Route | Mount]:
        """Everything that can be asked for."""
        one = "/api/sessions/{session}"
        return [
            Route("/", self.index),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/about", self.about),
            Route("/api/examples/{name}/thumbnail.jpg", self.thumbnail),
            Route("/api/examples/{name}", self.open_example, methods=["POST"]),
            Route("/api/uploads", self.upload, methods=["POST"]),
            Route("/api/cameras", self.open_camera, methods=["POST"]),
            Route(one, self.close, methods=["DELETE"]),
            Route(f"{one}/start", self.start_at, methods=["POST"]),
            Route(f"{one}/track", self.track, methods=["POST"]),
            Route(f"{one}/pictures", self.add_picture, methods=["POST"]),
            Route(f"{one}/{{action:str}}", self.control, methods=["POST"]),
            Route(f"{one}/runs/{{run:int}}/events", self.events),
            Route(f"{one}/runs/{{run:int}}/frames/{{number:int}}.jpg", self.frame),
            Route(f"{one}/results.zip", self.results),
        ]

    async def index(self, request: Request) -> Response:
        """The page."""
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def about(self, request: Request) -> Response:
        """What the page has to know at its start."""
        limits = self.limits
        return JSONResponse({
            "about": self._about, "local": self._local, "colours": COLOURS[: limits.targets],
            "examples": examples.descriptions(),
            "limits": {"bytes": limits.upload_bytes, "frames": limits.frames, "targets": limits.targets},
        })

    async def thumbnail(self, request: Request) -> Response:
        """What an example looks like."""
        picture = await run_in_threadpool(examples.thumbnail, request.path_params["name"])
        return Response(picture, media_type="image/jpeg")

    async def open_example(self, request: Request) -> Response:
        """A session with an example."""
        async with self._new_session() as session:
            session.hold(await run_in_threadpool(examples.open_example, request.path_params["name"]))
        return _describe(session)

    async def upload(self, request: Request) -> Response:
        """A session with the video or the images in the body, see `receive_files`."""
        check_upload_size(_content_length(request), self.limits)
        async with self._new_session() as session:
            folder = session.folder / "upload"
            folder.mkdir()
            files = await receive_files(request.stream(), folder, self.limits)
            session.hold(await run_in_threadpool(open_files, files, self.limits))
        return _describe(session)

    async def open_camera(self, request: Request) -> Response:
        """A session with the camera of the browser; the body is its first picture."""
        async with self._new_session() as session:
            session.camera = CameraFrames(await self._picture(request), self.limits)
            session.hold(session.camera.clip())
        return _describe(session)

    async def add_picture(self, request: Request) -> Response:
        """The next picture of the camera."""
        session = self._session(request)
        if session.camera is None:
            raise Refused(409, "This is not a camera.")
        session.camera.add(await self._picture(request))
        return JSONResponse({})

    async def _picture(self, request: Request) -> np.ndarray:
        data = await _body(request, self.limits.picture_bytes)
        return await run_in_threadpool(decode_picture, data, self.limits)

    async def start_at(self, request: Request) -> Response:
        """Choose the frame in which the targets are given; the body is {"frame": number}."""
        session = self._session(request)
        if session.active or session.clip is None:
            raise Refused(409, "This video is being tracked, or not there yet.")
        frame = (await _json(request)).get("frame")
        session.hold(await run_in_threadpool(starting_at, session.clip, frame))
        return JSONResponse({"length": session.clip.length})

    async def track(self, request: Request) -> Response:
        """Start; the body is {"boxes": [[x, y, w, h], ...]} in pixels of the video."""
        session = self._session(request)
        boxes = (await _json(request)).get("boxes")
        return JSONResponse({"run": self.sessions.start(session, boxes)}, status_code=202)

    async def control(self, request: Request) -> Response:
        """Pause, resume or finish."""
        session, action = self._session(request), request.path_params["action"]
        if action not in {"pause", "resume", "finish"}:
            raise HTTPException(404)
        if session.job is None:
            raise Refused(409, "Nothing is being tracked.")
        getattr(session.job, action)()
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        """The messages of a run, as server-sent events; `Last-Event-ID` says which ones the page has."""
        session = self._session(request)
        if session.job is None or request.path_params["run"] != session.runs:
            raise Refused(404, "There is no such run.")
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isdecimal() and len(last) < 10 else 0
        return StreamingResponse(self._stream(session, session.job.feed, after), media_type="text/event-stream")

    async def _stream(self, session: Session, feed: Feed, after: int) -> AsyncIterator[str]:
        session.watchers += 1
        try:
            async for number, message in feed.read(after):
                if self.closing:
                    return
                yield ": still here\n\n" if message is None else f"id: {number}\ndata: {message}\n\n"
        finally:
            session.watchers -= 1
            session.touch()

    async def frame(self, request: Request) -> Response:
        """A frame as the page shows it."""
        session = self._session(request)
        path = preview_path(session.folder, request.path_params["number"])
        if not path.is_file():
            raise HTTPException(404)
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type="image/jpeg", headers=headers)

    async def results(self, request: Request) -> Response:
        """The zip file with what `alpharefine track` writes."""
        session = self._session(request)
        if session.job is None or not session.job.archive.is_file():
            raise Refused(404, "There are no results yet: finish the tracking first.")
        archive = session.job.archive
        return FileResponse(archive, media_type="application/zip", filename=archive.name)

    async def close(self, request: Request) -> Response:
        """Forget a session."""
        await self.sessions.drop(self._session(request))
        return JSONResponse({})

    async def sweep(self) -> None:
        """Forget, from time to time, what nobody looks at any more."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sessions.sweep()

    def stop(self) -> None:
        """Let streams and jobs come to their end, so that the server can."""
        self.closing = True
        self.sessions.stop()

    def _session(self, request: Request) -> Session:
        return self.sessions.get(request.path_params["session"])

    @contextlib.asynccontextmanager
    async def _new_session(self) -> AsyncIterator[Session]:
        session = self.sessions.add()
        session.watchers += 1  # nobody else's upload makes it go
        try:
            yield session
        except BaseException:
            await self.sessions.drop(session)
            raise
        session.watchers -= 1
        session.touch()


def _describe(session: Session) -> Response:
    clip = session.held
    height, width = clip.first.shape[:2]
    return JSONResponse({
        "session": session.name, "kind": clip.kind, "width": width, "height": height, "fps": clip.fps,
        "length": clip.length, "announced": clip.announced, "boxes": clip.boxes,
    }, status_code=201)


async def _body(request: Request, most: int) -> bytes:
    """The body. Raises Refused when it is larger than `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Refused(413, f"That is more than the {most:,} bytes that are taken here.")
    return bytes(body)


async def _json(request: Request) -> dict:
    """The JSON object in the body, an empty one for anything else."""
    try:
        asked = json.loads(await _body(request, JSON_BYTES))
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _content_length(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


# ---- errors, as the page shows them


async def _in_words(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refused) else 500
    # What is left of a refused body is not read.
    headers = {"Connection": "close"} if status == 413 else None
    return JSONResponse({"message": str(error)}, status_code=status, headers=headers)


async def _http_in_words(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = {"message": "There is nothing here."}
    return JSONResponse(answer, status_code=error.status_code, headers=error.headers)


async def _to_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _bug_in_words(request: Request, error: Exception) -> Response:
    return JSONResponse({"message": "The server failed at this; its terminal shows where."}, status_code=500)

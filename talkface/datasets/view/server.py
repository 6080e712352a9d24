"""The page's server: on this machine alone, for whoever has the token, and nothing but one dataset.

A request names a clip by its key, which is looked up; no path is ever made from what was asked for. The gate comes
before everything else: the right Host (a page elsewhere cannot point its own name at this address, DNS rebinding), the
right Origin, and the token, in the url or in the cookie that it was traded for.
"""

import re
import secrets
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talkface.datasets.open import open_dataset
from talkface.datasets.selection import Mark, mark
from talkface.datasets.view.clips import Clips
from talkface.errors import ConfigError, RunError, TalkfaceError

LOOPBACK = "127.0.0.1"

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self'; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

PICTURE_SIDE = 112


class Gate:
    """Lets a request through to ``app`` if its Host, its Origin and its token are right: 421, 403 or 403 if not."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
        self._cookie = f"talkface_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (self._refusal(Request(scope)) or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that must not pass, or that trades its token for the cookie."""
        if set(request.headers.getlist("host")) - self._hosts or len(request.headers.getlist("host")) != 1:
            return PlainTextResponse("not for this host", 421)
        origin = request.headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return PlainTextResponse("not from there", 403)
        given = request.query_params.get("token", request.cookies.get(self._cookie, ""))
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse("Open the address that `toolkit view` printed: its token is missing or old.", 403)
        if request.url.path != "/" or "token" not in request.query_params:
            return None
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer


def make_app(clips: Clips, token: str, port: int) -> ASGIApp:
    """The page and its data behind the gate."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    marking = threading.Lock()
    page = {name: (path.read_bytes(), TYPES[name.rsplit(".", 1)[-1]]) for name, path in _page_files()}

    @app.exception_handler(TalkfaceError)
    def told(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 400 if isinstance(error, ConfigError) else 409)

    @app.get("/")
    def index() -> Response:
        return _page_file("index.html")

    @app.get("/page/{name}")
    def asset(name: str) -> Response:
        return _page_file(name)

    def _page_file(name: str) -> Response:
        if name not in page:
            raise HTTPException(404, "no such page")
        data, kind = page[name]
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    @app.get("/api/dataset")
    def about() -> dict[str, Any]:
        return clips.about()

    @app.get("/api/clips")
    def table() -> Response:
        return _binary(clips.table())

    @app.get("/api/rejects")
    def rejects() -> Response:
        return _binary(clips.rejects())

    @app.get("/api/selection")
    def selection() -> dict[str, Any]:
        return clips.selection().model_dump(exclude_none=True)

    @app.post("/api/marks")
    def set_marks(marks: Annotated[dict[str, Mark | None], Body()]) -> dict[str, Any]:
        with marking:
            return mark(clips.dataset, marks).model_dump(exclude_none=True)

    @app.get("/api/clips/{key}/json")
    def clip_json(key: str) -> dict[str, Any]:
        return clips.json(_known(key))

    @app.get("/api/clips/{key}/columns")
    def columns(key: str, names: Annotated[str, Query()]) -> Response:
        return _binary(clips.columns(_known(key), names.split(",")))

    @app.get("/api/clips/{key}/media")
    def media(key: str, request: Request) -> Response:
        data, kind = clips.media(_known(key))
        return ranged(data, request.headers.get("range"), kind)

    @app.get("/api/clips/{key}/picture")
    def picture(key: str) -> Response:
        data = clips.picture(_known(key), PICTURE_SIDE)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def _known(key: str) -> str:
        if key not in clips:
            raise HTTPException(404, "no such clip")
        return key

    return Gate(app, token, port)


def ranged(data: bytes, header: str | None, kind: str) -> Response:
    """The bytes, or the one range of them that is asked for (RFC 9110, 14.2); 416 for one that lies outside."""
    always = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if asked is None or asked.group(1) == asked.group(2) == "":
        return Response(data, media_type=kind, headers=always)
    first, last = asked.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) if first and last else len(data) - 1, len(data) - 1)
    if start > end:
        return Response(status_code=416, headers=always | {"Content-Range": f"bytes */{len(data)}"})
    about = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], 206, media_type=kind, headers=always | about)


def serve(url: str, port: int | None, opened: Callable[[str], None]) -> None:
    """Serve until interrupted; ``opened`` gets the address, token included, once connections are taken.

    ``port`` 0 takes any that is free; None prefers the same one every time. Raises RunError for one that is taken.
    """
    clips = Clips(open_dataset(url, selection=False))
    clips.selection()
    with listener(port) as bound:
        number = bound.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = make_app(clips, token, number)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
        opened(f"http://{LOOPBACK}:{number}/?token={token}")
        uvicorn.Server(settings).run(sockets=[bound])


def listener(port: int | None) -> socket.socket:
    """A socket on the loopback address that takes connections from now on."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for wanted in (8700, 0) if port is None else (port,):
        try:
            bound.bind((LOOPBACK, wanted))
        except OSError as error:
            if wanted == 0 or port is not None:
                bound.close()
                raise RunError(f"--port {wanted}: {error.strerror}. Choose another, or 0 for any.") from error
        else:
            break
    bound.listen()
    return bound


def _binary(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def _page_files() -> list[tuple[str, Any]]:
    return [(path.name, path) for path in (files("talkface.datasets.view") / "page").iterdir() if path.is_file()]

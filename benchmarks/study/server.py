"""The study as a web app: one page, three videos a question, an answer kept before the next question is shown.

A link holds a participant's token, and is all that tells one from another: no cookie, no log of who came from where.
Addresses name the place of a question and of a video, never a file.
"""

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.study.answers import Answers, Participant
from benchmarks.study.folder import video_path
from thead_eval.errors import ConfigError

HERE = Path(__file__).parent
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",  # the address of the page is the participant's secret
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
NO_LINK = "This link does not belong to this study. Please open the whole link that you were given."


class Given(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: int = Field(ge=0)
    choice: int = Field(ge=1, le=3)
    milliseconds: int = Field(ge=0, le=24 * 3600 * 1000)


def make_app(folder: Path, answers: Answers) -> Starlette:
    """The app of the study in `folder`."""

    def participant(request: Request) -> Participant:
        found = answers.find(request.path_params["token"])
        if found is None:
            raise HTTPException(404, NO_LINK)
        return found

    def page(request: Request) -> Response:
        participant(request)
        return FileResponse(HERE / "page.html")

    def state(request: Request) -> Response:
        return JSONResponse(_state(participant(request)))

    def video(request: Request) -> Response:
        question = answers.question(participant(request), request.path_params["number"])
        place = request.path_params["place"]
        if question is None or not 1 <= place <= 3:
            raise HTTPException(404, "There is no such video.")
        # The file's own date and tag would be of the file; these are of the place.
        headers = {"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT", "etag": f'"{question.number}-{place}"'}
        return FileResponse(video_path(folder, question.triplet, question.videos[place - 1]), headers=headers)

    async def answer(request: Request) -> Response:
        try:
            given = Given.model_validate_json(await request.body())
        except ValidationError:
            raise HTTPException(422, "An answer has a question, a choice of 1, 2 or 3, and milliseconds.") from None

        def keep() -> Response:
            who = participant(request)
            kept = answers.add(who, given.question, given.choice, given.milliseconds)
            return JSONResponse(_state(participant(request)), 200 if kept else 409)

        return await run_in_threadpool(keep)

    def file(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(HERE / name)

    return Starlette(
        routes=[
            Route("/page.css", file("page.css")),
            Route("/page.js", file("page.js")),
            Route("/p/{token}", page),
            Route("/p/{token}/state", state),
            Route("/p/{token}/answers", answer, methods=["POST"]),
            Route("/p/{token}/videos/{number:int}/{place:int}", video),
        ],
        middleware=[Middleware(_Headers)],
        exception_handlers={HTTPException: _refuse},
    )


def _state(who: Participant) -> dict[str, int]:
    return {"questions": who.questions, "answered": who.answered}


def _refuse(request: Request, error: Exception) -> Response:
    """A page for people, a line for the page's own requests."""
    assert isinstance(error, HTTPException)
    text = error.detail if error.detail != "Not Found" else NO_LINK
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": text}, error.status_code)
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Study</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css">'
        f'<main class="words"><h1>Not found</h1><p>{text}</p></main></html>',
        error.status_code,
    )


class _Headers:
    """Puts `HEADERS` on every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = {name.encode(): value.encode() for name, value in HEADERS.items()}
                message["headers"] = [*message["headers"], *named.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def listen(host: str, port: int) -> socket.socket:
    """The socket on which the study is served.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot serve on {host}, port {port} ({error.strerror}); name another --port or --host"
        ) from error


def serve(folder: Path, answers: Answers, opened: socket.socket) -> None:
    """Serve until the process is told to stop."""
    config = uvicorn.Config(make_app(folder, answers), log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[opened])

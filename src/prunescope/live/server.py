"""The server of the live page: loopback only, two answers (the page, and the run's progress as JSON), no files, nothing to change."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prunescope.live.board import Board
from prunescope.report.html import asset, embedded
from prunescope.types import ConfigError

HOST = "127.0.0.1"
NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SHARED = ("page.js", "axes.js", "charts.js", "tables.js")  # the report's drawing, which this page draws with too
ATTENTION = 8.0  # seconds after its last question for which a page counts as open


class Watch:
    """Serves the page of the run in `folder` at `address` while it is open: `with Watch("runs/mine") as watch: ...`.

    The folder may still be empty: the page waits for the run to begin. `port` 0 takes one that is free. Only 127.0.0.1 is listened on,
    and requests with another Host are refused, so that no other site can read it through a name that points here.
    """

    def __init__(self, folder: str | Path, port: int = 0) -> None:
        self.board = Board(folder)
        self._heard, self._told, self.closed = 0.0, "", False
        try:
            self._server = _Server((HOST, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port}: cannot be listened on at {HOST} ({error}): give another one, or 0 for any") from error
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}/"

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closed = True  # also for browsers whose connection is still open
        self._server.shutdown()
        self._server.server_close()

    def linger(self, seconds: float = 6.0) -> None:
        """Wait until a page that is open has seen the run's end, at most so long; at once where none is open."""
        until = time.monotonic() + seconds
        while self._heard and time.monotonic() < until and time.monotonic() - self._heard < ATTENTION and self._told != "finished":
            time.sleep(0.1)

    def answer(self, path: str) -> tuple[int, str, str, str]:
        """(status, content type, content policy, body) for the path of a GET."""
        asked = urlsplit(path)
        if asked.path == "/":
            text, policy = self.page()
            return 200, "text/html", policy, text
        if asked.path == "/state":
            query = parse_qs(asked.query)
            since = query.get("since", ["0"])[0]
            found = self.board.state(int(since) if since.isdigit() else 0, query.get("plane", [""])[0])
            self._heard, self._told = time.monotonic(), found["status"]
            return 200, "application/json", "default-src 'none'", json.dumps(found, allow_nan=False)
        return 404, "text/plain", "default-src 'none'", "not found: this server has its page at / and the run's progress at /state\n"

    def page(self) -> tuple[str, str]:
        """The page and its policy: our own style and script by their hashes, questions to this server alone, an empty icon in the page."""
        style, script = asset("page.css") + _own("live.css"), "\n".join([*(asset(n) for n in SHARED), _own("live.js")])
        script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
        data = _about(self.board)
        parts = {
            "title": html.escape(f"{data['about'].get('title') or self.board.following.folder.name} · live · prunescope"),
            "style": style,
            "data": embedded(data),
            "script": script,
        }
        pieces = _own("live.html").split("%%")
        text = "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
        own = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        return text, f"default-src 'none'; {own}; connect-src 'self'; img-src data:; {NOTHING_ELSE}"


def _about(board: Board) -> dict[str, Any]:
    """What the page is built with: the run's name and which variants and levels it will have."""
    board.state()  # reads the folder
    about = board.following.experiment or {}
    cells = list(dict.fromkeys((t.get("group", ""), t.get("variant", ""), t.get("sparsity")) for t in about.get("trials", [])))
    return {
        "about": {k: about.get(k) for k in ("title", "name", "question", "command", "created")},
        "folder": str(board.following.folder),
        "summary": {},
        "cells": {
            "label": [v if s is None else f"{v} {s * 100:g} %" for _, v, s in cells],
            "group": [g for g, _, _ in cells],
            "variant": [v for _, v, _ in cells],
            "sparsity": [s for _, _, s in cells],
            "baseline": [v == about.get("baseline") for _, v, _ in cells],
        },
    }


def _own(name: str) -> str:
    return resources.files("prunescope.live").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle of an answer is nobody's concern."""


def _handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, protocol_version = "prunescope", "", "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            if watch.closed:
                self.close_connection = True
                return
            hosts = (f"{HOST}:{watch.port}", f"localhost:{watch.port}")
            if self.headers.get("Host", "").lower() not in hosts:
                self._send(403, "text/plain", "default-src 'none'", f"refused: this server answers to {hosts[0]} alone\n")
                return
            try:
                found = watch.answer(self.path)
            except Exception as error:  # the page goes on asking; a traceback would land in the run's terminal
                found = 500, "text/plain", "default-src 'none'", f"{type(error).__name__}: {error}\n"
            self._send(*found)

        def _send(self, status: int, kind: str, policy: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                ("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Resource-Policy", "same-origin"), ("X-Frame-Options", "DENY"),
            ):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the terminal belongs to the run."""

    return Handler

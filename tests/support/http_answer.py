"""A real HTTP server that gives one answer to everything, on TCP or on a unix socket."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server(status: int, body: object, path: str = "") -> Iterator[str]:
    """Answers every GET; yields its address. `path`: a unix socket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def address_string(self) -> str:
            return "client"

        def log_message(self, *_: object) -> None:
            pass

    listening: socketserver.BaseServer
    listening = socketserver.UnixStreamServer(path, Handler) if path else http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"unix:{path}" if path else f"http://127.0.0.1:{listening.server_address[1]}"  # type: ignore[index]
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()

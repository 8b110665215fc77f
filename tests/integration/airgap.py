"""A connected machine and one without a network, both on this one."""

import http.server
import threading
from dataclasses import dataclass

from account import Account


@dataclass(frozen=True)
class Isolated(Account):
    """An account whose programs have no network at all, not even loopback."""

    def command(self, *argv, **options):
        return ["unshare", "--net", *super().command(*argv, **options)]


class Index:
    """A package index on loopback.

    Attributes
    ----------
    asked
        The files that valska itself took from it.
    """

    def __init__(self, directory):
        self.asked = []
        index = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=directory)

            def do_GET(self):
                if self.headers.get("User-Agent") == "valska":
                    index.asked.append(self.path)
                super().do_GET()

            def log_message(self, *words):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

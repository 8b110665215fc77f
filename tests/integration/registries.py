"""Real registries on loopback, and a wire to them that can be slow or cut."""

import base64
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SCRIPT = Path(__file__).parents[1] / "cluster" / "registry.sh"


class Registry:
    """Debian's docker-registry, with its files in a directory."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.settings = {f"REGISTRY_{key}": str(value) for key, value in settings.items()}
        self.host = self._run("start", directory)

    @property
    def port(self):
        return int(self.host.rpartition(":")[2])

    def stop(self):
        """Kill it."""
        self._run("stop", self.directory)

    def start(self):
        """Start it again, on the port that it had."""
        assert self._run("start", self.directory, self.port) == self.host

    def push_tree(self, root, name, **environ):
        """Push a directory as an image, and return its digest."""
        return self._run("push", root, f"{self.host}/{name}", **environ)

    def blob(self, digest):
        """Return the file in which the registry keeps a blob or a manifest."""
        digits = digest.removeprefix("sha256:")
        blobs = self.directory / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / digits[:2] / digits / "data"

    def _run(self, *words, **environ):
        done = subprocess.run(
            [SCRIPT, *map(str, words)],
            env={**os.environ, **self.settings, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Wire:
    """Passes bytes on between a port of its own and a registry's, and counts them.

    Attributes
    ----------
    passed
        Bytes that have passed, in either direction.
    pause
        Seconds to wait after each piece.
    """

    def __init__(self, port, pause=0.0):
        self.passed, self.pause = 0, pause
        self._port, self._trip = port, None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def when_passed(self, amount, action):
        """Call a function once, when so many bytes have passed."""
        self._trip = (self.passed + amount, action)

    def close(self):
        self._listening.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near):
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        with near, far:
            with suppress(OSError):
                far.connect(("127.0.0.1", self._port))
                threading.Thread(target=self._send, args=(near, far), daemon=True).start()
                while piece := far.recv(1 << 16):
                    near.sendall(piece)
                    self._count(len(piece))
            with suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)  # closing alone does not end the other's read

    def _send(self, near, far):
        with suppress(OSError):
            while piece := near.recv(1 << 16):
                far.sendall(piece)
                self._count(len(piece))

    def _count(self, amount):
        self.passed += amount
        if self._trip and self.passed >= self._trip[0]:
            action, self._trip = self._trip[1], None
            action()
        time.sleep(self.pause)


def make_certificate(directory):
    """Make a key and a certificate for loopback that signs itself; return their files."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=loopback"
    extension = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", *words.split(), *extension, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return key, certificate


class TokenService:
    """Gives out the tokens that registries such as Docker Hub want: to read without a login too."""

    ISSUER, SERVICE = "loopback", "registry"

    def __init__(self, directory, user, password):
        self.key, self.certificate = make_certificate(directory)
        self.login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.asked = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                service.answer(self)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def settings(self):
        """What the registry has to know."""
        return {
            "AUTH": "token",
            "AUTH_TOKEN_REALM": self.realm,
            "AUTH_TOKEN_SERVICE": self.SERVICE,
            "AUTH_TOKEN_ISSUER": self.ISSUER,
            "AUTH_TOKEN_ROOTCERTBUNDLE": self.certificate,
        }

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        scopes = parse_qs(urlsplit(request.path).query).get("scope", [])
        known = request.headers.get("Authorization") == self.login
        self.asked.append((known, scopes))
        body = json.dumps({"token": self._token(scopes, known)}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _token(self, scopes, known):
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [action for action in actions.split(",") if known or action == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        chain = [
            "".join(line for line in self.certificate.read_text().split("\n") if "--" not in line)
        ]
        head = {"alg": "RS256", "typ": "JWT", "x5c": chain}
        claims = {
            "iss": self.ISSUER,
            "aud": self.SERVICE,
            "sub": "somebody",
            "jti": "1",
            "nbf": now - 60,
            "iat": now,
            "exp": now + 300,
            "access": access,
        }
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key],
            input=signed,
            capture_output=True,
            check=True,
        ).stdout
        return (signed + b"." + _encoded(signature)).decode()


def _encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")

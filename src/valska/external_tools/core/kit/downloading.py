"""Files of packages from where an index has them, each checked against its digest."""

from __future__ import annotations

import errno
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, Request, build_opener

from valska.external_tools.core.errors import PrerequisiteError, VerificationError
from valska.external_tools.core.images.building.environment import find_ca_bundle
from valska.external_tools.core.kit.wheels import PackageFile
from valska.external_tools.core.utils import CHUNK_BYTES

ATTEMPTS = 3
PAUSE_S = 1.0
TIMEOUT_S = 60.0

_GONE = frozenset((401, 403, 404, 410))
_OURS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG))
"""What goes wrong with the file that is written, and not with the network."""

log = logging.getLogger(__name__)


class Downloads:
    """Downloads with one set of certificates, proxies and passwords, all of the environment.

    Parameters
    ----------
    environ
        The caller's environment.
    sleep
        Waits for so many seconds.
    """

    def __init__(
        self, environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._opener = _opener(environ)
        self._logins = dict(_logins(environ))
        self._sleep = sleep

    def get(
        self, wanted: PackageFile, target: Path, advance: Callable[[int], object] | None = None
    ) -> None:
        """Download a file; what breaks off is tried again, from the start.

        Parameters
        ----------
        wanted
            What, and from where.
        target
            The file to write.
        advance
            Told how many bytes more have come; fewer than none when it starts again.

        Raises
        ------
        PrerequisiteError
            If it cannot be had.
        VerificationError
            If what is served does not have the digest.
        """
        for attempt in range(1, ATTEMPTS + 1):
            came = [0]
            try:
                with target.open("wb") as out:
                    digest = self._receive(wanted, out, came, advance)
                break
            except (OSError, EOFError, HTTPException) as error:
                if getattr(error, "errno", None) in _OURS:
                    raise
                if attempt == ATTEMPTS or _is_final(error):
                    raise _unavailable(wanted, error) from error
                _ = advance and advance(-came[0])
                log.warning("%s: %s; trying again", wanted.name, _reason(error))
            self._sleep(PAUSE_S * 2 ** (attempt - 1))
        if digest != wanted.sha256:
            raise VerificationError(
                f"{_host(wanted.url)} does not serve the {wanted.name} that was locked: "
                f"its sha256 is {digest[:12]}…, not {wanted.sha256[:12]}…",
                "Do not use it; ask who runs the index, or a proxy before it.",
            )

    def _receive(
        self,
        wanted: PackageFile,
        out: IO[bytes],
        came: list[int],
        advance: Callable[[int], object] | None,
    ) -> str:
        digest = sha256()
        with self._opener.open(self._request(wanted.url), timeout=TIMEOUT_S) as answer:
            expected = answer.headers.get("Content-Length")
            while chunk := answer.read(CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
                came[0] += len(chunk)
                _ = advance and advance(len(chunk))
        if expected is not None and int(expected) != came[0]:
            raise EOFError("the connection broke off")
        return digest.hexdigest()

    def _request(self, url: str) -> Request:
        headers = {"Accept-Encoding": "identity", "User-Agent": "valska"}
        login = self._logins.get(_host(url))
        if login:
            headers["Authorization"] = f"Basic {login}"
        return Request(url, headers=headers)  # noqa: S310 - what uv said, checked by its digest


def _opener(environ: Mapping[str, str]) -> OpenerDirector:
    import ssl

    bundle = find_ca_bundle(None, environ)
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    return build_opener(HTTPSHandler(context=context))


def _logins(environ: Mapping[str, str]) -> Any:
    """Yield host and password of the indexes that are named with one."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        for url in environ.get(name, "").split():
            parts = urlsplit(url)
            if parts.username is not None:
                pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                yield _host(url), b64encode(pair.encode()).decode()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or "this machine"


def _is_final(error: Exception) -> bool:
    return isinstance(error, HTTPError) and error.code in _GONE


def _unavailable(wanted: PackageFile, error: Exception) -> PrerequisiteError:
    return PrerequisiteError(
        f"{wanted.name} cannot be fetched from {_host(wanted.url)}: {_reason(error)}",
        "Check the network and https_proxy, then run the same again: what has come is kept.",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"it answers {error.code}"
    reason = error.reason if isinstance(error, URLError) else error
    text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
    return str(text).lower()

"""HTTP to a registry: oras-py's client with our time-outs, retries, credentials and errors.

Imports oras, which takes a while: imported by functions, never by modules.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import oras.auth.token
import oras.auth.utils
import oras.provider
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationValueError

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.registry.credentials import account_keys, read_logins
from valska.external_tools.core.images.registry.failures import (
    NoAnswerError,
    NotFoundError,
    broken_connection,
)
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.reference import (
    DOCKER_HUB,
    Reference,
    is_loopback,
)

MAX_PAUSE_S = 30.0
_MOST_TOLD_BYTES = 1 << 16

_HUB_HOST = "registry-1.docker.io"
_ASK = "Check its name, tag and digest."
_LOGIN = "Log in (`apptainer registry login`, `docker login`), or ask for access to it."
_T = TypeVar("_T")

log = logging.getLogger(__name__)
logging.getLogger("oras.logger").addHandler(logging.NullHandler())


class Connection:
    """A registry, and how it is asked.

    Parameters
    ----------
    reference
        Says which registry and repository.
    http
        How to ask.
    """

    def __init__(self, reference: Reference, http: Http) -> None:
        self.reference = reference
        self.http = http
        self._open("http" if http.plain or is_loopback(reference.registry) else "https")

    def _open(self, scheme: str) -> None:
        named = self.reference
        host = _HUB_HOST if named.registry == DOCKER_HUB else named.registry
        self.root = f"{scheme}://{host}/v2/{named.repository}"
        self._client = _Client(self.root, named, self.http)

    @property
    def is_plain(self) -> bool:
        """Whether it is asked over plain HTTP."""
        return self.root.startswith("http://")

    def request(
        self,
        method: str,
        where: str,
        *,
        expected: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        stream: bool = False,
        what: str | None = None,
    ) -> requests.Response:
        """Ask once.

        Parameters
        ----------
        method
            GET, HEAD, POST or PUT.
        where
            Path below the repository, or a whole URL that the registry gave.
        expected
            Status codes that are an answer.
        headers, data
            As for `requests`.
        stream
            Leave the body of the answer to be read; else it is thrown away.
        what
            What is asked for, in words.

        Raises
        ------
        NoAnswerError
            If the registry does not answer, or says that it cannot now.
        NotFoundError
            If it has no such thing.
        PrerequisiteError
            If it does not let this user do it, its certificate is not trusted, or it refuses.
        """
        url = where if "://" in where else f"{self.root}/{where}"
        try:
            response = self._client.do_request(
                url, method, headers=dict(headers or {}), data=data, stream=True
            )
        except (requests.RequestException, LocationValueError) as error:
            raise self.broken(error) from error
        except ValueError as error:
            raise self._unauthorised(what) from error
        if response.status_code in expected:
            if not stream:
                response.close()
            return response
        with response:
            said = _beginning(response)
            if not self._should_encrypt(response, said):
                raise self._refusal(response, said, what)
        self._open("https")
        return self.request(
            method, where, expected=expected, headers=headers, data=data, stream=stream, what=what
        )

    def _should_encrypt(self, response: requests.Response, said: bytes) -> bool:
        """Tell whether this is a registry on loopback that wants HTTPS after all."""
        asked = self.is_plain and not self.http.plain and response.status_code == 400
        return asked and b"HTTPS server" in said[:200]

    def broken(self, error: Exception) -> PrerequisiteError:
        """Return the error that a broken connection stands for, see `broken_connection`."""
        return broken_connection(self.reference.registry, error, max(self.http.timeout))

    def _refusal(
        self, response: requests.Response, said: bytes, what: str | None
    ) -> PrerequisiteError:
        code, told = response.status_code, _told(said)
        what = what or str(self.reference)
        registry = self.reference.registry
        if code in (401, 403):
            return self._unauthorised(what)
        if code == 404:
            return NotFoundError(f"the registry {registry} does not have {what}{told}", _ASK)
        if _is_passing(code):
            wait = _seconds(response.headers.get("Retry-After"))
            return NoAnswerError(
                f"the registry {registry} answers {code} for {what}{told}",
                "Try again later; a login raises the limits of most registries.",
                wait,
            )
        return PrerequisiteError(f"the registry {registry} answers {code} for {what}{told}")

    def _unauthorised(self, what: str | None) -> PrerequisiteError:
        return PrerequisiteError(
            f"the registry {self.reference.registry} does not give you {what or self.reference}: "
            "it is private, or not there",
            _LOGIN,
        )


def retried(http: Http, action: Callable[[], _T]) -> _T:
    """Do something again, after a pause that doubles, as long as a registry does not answer.

    Raises
    ------
    NoAnswerError
        If it has not answered the last time either.
    """
    for attempt in range(1, http.attempts):
        try:
            return action()
        except NoAnswerError as error:
            pause = min(error.wait or http.pause * 2 ** (attempt - 1), MAX_PAUSE_S)
            log.warning("%s; trying again in %g s", error.message, pause)
            time.sleep(pause)
    return action()


class _Client(oras.provider.Registry):  # type: ignore[misc]
    def __init__(self, root: str, reference: Reference, http: Http) -> None:
        parts = urlsplit(root)
        bundle = http.ca_bundle
        super().__init__(
            parts.netloc, parts.scheme == "http", tls_verify=str(bundle) if bundle else True
        )
        self.session.headers["Accept-Encoding"] = "identity"
        self.session.auth = _as_it_is  # or the password of ~/.netrc replaces a token
        self.session.trust_env = not is_loopback(reference.registry)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(http.timeout))
        self.auth = _Authentication(self, parts.scheme)
        self.auth.log_in(reference, http)

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """Ask once: oras-py's own retries wait for minutes and do not say so."""
        headers = dict(headers or {})
        if self.auth.is_for(url):
            headers.update(self.auth.get_auth_header())
        once = oras.provider.Registry.do_request.__wrapped__
        response: requests.Response = once(self, url, method, data, headers, json, stream)
        return response


class _Adapter(HTTPAdapter):
    """Gives every request a time-out, those for tokens too."""

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._timeout = timeout
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or self._timeout
        return super().send(request, *args, **kwargs)


class _Authentication(oras.auth.token.TokenAuth):  # type: ignore[misc]
    """Tokens and passwords, to the registry's own host only, anew for every challenge."""

    def __init__(self, client: oras.provider.Registry, scheme: str) -> None:
        super().__init__()
        self.session, self.prefix = client.session, scheme
        self.hostname, self._tls_verify = client.hostname, client._tls_verify
        self._answer: dict[str, str] = {}

    def log_in(self, reference: Reference, http: Http) -> None:
        self._auth_config = read_logins(http)
        for key in account_keys(reference.registry, self._auth_config):
            try:
                if self._load_auth(key):
                    return
            except (ValueError, LookupError, TypeError, AttributeError, OSError):
                log.warning("the login for %s cannot be used", reference.registry)

    def is_for(self, url: str) -> bool:
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (self.prefix, self.hostname)

    def get_auth_header(self) -> dict[str, str]:
        return self._answer

    def authenticate_request(
        self, original: requests.Response, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        challenge = original.headers.get("Www-Authenticate", "")
        original.close()
        if not self.is_for(original.url) or not challenge:
            return headers, False
        if challenge.lower().startswith("basic"):
            return self._with_password(headers)
        realm = oras.auth.utils.parse_auth_header(challenge).realm or ""
        if not self._is_safe(realm):
            return headers, False
        self.token = None
        with _checking(self.session):
            headers, changed = super().authenticate_request(original, headers)
        self.token = None  # oras-py would send it to any host
        self._answer = {"Authorization": headers["Authorization"]} if changed else {}
        return headers, changed

    def _with_password(self, headers: dict[str, str]) -> tuple[dict[str, str], bool]:
        password = getattr(self, "_basic_auth", None)
        if not password:
            return headers, False
        self._answer = {"Authorization": f"Basic {password}"}
        return {**headers, **self._answer}, True

    def _is_safe(self, realm: str) -> bool:
        parts = urlsplit(realm)
        return parts.scheme == "https" or (parts.scheme == "http" and self.prefix == "http")


@contextmanager
def _checking(session: requests.Session) -> Iterator[None]:
    """Take a token service that cannot answer now for a connection that broke off."""
    hooks = session.hooks["response"]
    hooks.append(_check)
    try:
        yield
    finally:
        hooks.remove(_check)


def _check(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    if _is_passing(response.status_code):
        reason = f"its token service answers {response.status_code}"
        raise requests.ConnectionError(OSError(0, reason))


def _is_passing(code: int) -> bool:
    """Tell whether a status code says that asking again may help."""
    return code == 429 or code >= 500


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _beginning(response: requests.Response) -> bytes:
    """Return the beginning of an answer, which may have no end."""
    try:
        return next(response.iter_content(_MOST_TOLD_BYTES), b"")
    except requests.RequestException:
        return b""


def _told(said: bytes) -> str:
    """Return what the registry says is wrong, as far as it is fit to be shown."""
    try:
        errors = json.loads(said)["errors"]
        words = ", ".join(str(entry["message"]) for entry in errors if entry.get("message"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    shown = "".join(c if c.isprintable() else " " for c in words[:200])
    return f" ({shown})" if shown else ""


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None

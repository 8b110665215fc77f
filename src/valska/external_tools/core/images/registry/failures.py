"""What a connection that broke off stands for: whether asking again may help, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import requests
from urllib3.exceptions import LocationValueError

from valska.external_tools.core.errors import PrerequisiteError

_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
_WITHOUT = "valska fetch prepares builds and runs for a machine that has no network."


class NoAnswerError(PrerequisiteError):
    """A registry does not answer now; asking again may help.

    Parameters
    ----------
    message, hint
        See `ValskaError`.
    wait
        Seconds to wait before asking again, if the registry said so.
    """

    def __init__(self, message: str, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint)
        self.wait = wait


class NotFoundError(PrerequisiteError):
    """A registry does not have what was asked for."""


def broken_connection(registry: str, error: Exception, seconds: float) -> PrerequisiteError:
    """Return the error that a broken connection stands for; it tells no URL.

    Parameters
    ----------
    registry
        Who was asked.
    error
        What `requests` raised.
    seconds
        For how long an answer was waited for.

    Returns
    -------
    PrerequisiteError
        A `NoAnswerError` where asking again may help.
    """
    if isinstance(error, requests.exceptions.SSLError):
        return _distrusted(registry, str(error))
    if _is_unknown_name(error):
        return PrerequisiteError(
            f"the registry {registry} does not answer: there is no such name",
            f"Check it, and https_proxy; {_WITHOUT}",
        )
    if isinstance(error, requests.exceptions.Timeout):
        reason = f"no answer within {seconds:g} s"
    else:
        reason = _reason(error)
    return NoAnswerError(
        f"the registry {registry} does not answer: {reason}",
        f"Check the network and https_proxy; {_WITHOUT}",
    )


def _distrusted(registry: str, text: str) -> PrerequisiteError:
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
        return PrerequisiteError(
            f"the registry {registry} does not speak HTTPS",
            "If it is meant to be asked over plain HTTP, say --no-https.",
        )
    return PrerequisiteError(
        f"the certificate of the registry {registry} is not trusted",
        "Name the certificates to trust: --ca-bundle, ca_bundle in the configuration, "
        "or SSL_CERT_FILE.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it wraps, as arguments, reasons or causes."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = (*found.args, getattr(found, "reason", None), found.__cause__, found.__context__)
        waiting += [part for part in inner if isinstance(part, BaseException)]


def _is_unknown_name(error: BaseException) -> bool:
    """Tell whether a name is not known, rather than that nobody can be asked for it now."""
    return any(
        isinstance(part, LocationValueError)
        or (isinstance(part, socket.gaierror) and part.errno in _NO_SUCH_NAME)
        for part in _chain(error)
    )


def _reason(error: BaseException) -> str:
    """Return what the system said of a broken connection."""
    found = tuple(_chain(error))
    if any(isinstance(part, socket.gaierror) for part in found):
        return "its name cannot be looked up now"
    words = (part.strerror for part in found if isinstance(part, OSError) and part.strerror)
    return next(words, "the connection broke off").lower()

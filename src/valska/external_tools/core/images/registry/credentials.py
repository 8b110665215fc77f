"""Logins for registries, where Docker, Apptainer, Podman and skopeo keep them."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.reference import DOCKER_HUB

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_ANY = "*"

log = logging.getLogger(__name__)


def read_logins(http: Http) -> dict[str, Any]:
    """Return the logins of all files as one of Docker's, those of Apptainer first.

    The keys are ``auths``, ``credHelpers`` and ``credsStore``; a file that cannot be read counts
    for nothing.
    """
    logins: dict[str, Any] = {"auths": {}, "credHelpers": {}}
    for path in _files(http.environ):
        found = _read(path)
        for key in ("auths", "credHelpers"):
            if isinstance(found.get(key), dict):
                logins[key] = {**found[key], **logins[key]}
        logins["credsStore"] = logins.get("credsStore") or found.get("credsStore")
    return {**logins, "auths": {**logins["auths"], **_from_environment(http.environ)}}


def account_keys(registry: str, logins: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which the logins have one for a registry.

    Where all are kept by a program (``credsStore``) it may know the registry by its usual name.
    """
    hub = _HUB_KEYS if registry == DOCKER_HUB else ()
    names = (*hub, registry, f"https://{registry}", f"https://{registry}/v2/")
    known = {**logins["auths"], **logins["credHelpers"]}
    found = tuple(name for name in (_ANY, *names) if name in known)
    return found or (names[:1] if logins.get("credsStore") else ())


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ.get("HOME") or Path.home())
    named = (environ.get(name) for name in ("APPTAINER_AUTHFILE", "REGISTRY_AUTH_FILE"))
    yield from (Path(path) for path in named if path)
    apptainer = environ.get("APPTAINER_CONFIGDIR") or home / ".apptainer"
    yield Path(apptainer) / "docker-config.json"
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        log.warning("the logins in %s cannot be read", path)
        return {}
    return data if isinstance(data, dict) else {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    user, password = (environ.get(f"APPTAINER_DOCKER_{key}") for key in ("USERNAME", "PASSWORD"))
    if not user or not password:
        return {}
    return {_ANY: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}

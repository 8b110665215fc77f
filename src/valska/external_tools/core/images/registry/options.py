"""How registries are asked: certificates, plain HTTP, patience."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PLAIN = ("APPTAINER_NOHTTPS", "APPTAINER_NO_HTTPS", "SINGULARITY_NOHTTPS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """How registries are asked.

    Parameters
    ----------
    plain
        Plain HTTP. A registry on this machine's loopback is always asked so.
    ca_bundle
        Certificates to trust; the system's, or those that ``REQUESTS_CA_BUNDLE`` names, if None.
    attempts
        How often in all to ask a registry that does not answer.
    pause
        Seconds before it is asked the second time; doubled for every further time.
    timeout
        Seconds to wait for a connection, and for each piece of an answer.
    environ
        Says where the logins are.
    """

    plain: bool = False
    ca_bundle: Path | None = None
    attempts: int = 4
    pause: float = 1.0
    timeout: tuple[float, float] = (15.0, 60.0)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)


def http_options(
    *,
    no_https: bool = False,
    ca_bundle: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Http:
    """Return how to ask, from flags, configuration and environment.

    Parameters
    ----------
    no_https
        Plain HTTP, as Apptainer's ``--no-https`` and ``APPTAINER_NOHTTPS`` say.
    ca_bundle
        Certificates to trust; those of the environment if None.
    environ
        The environment; this process's if None.

    Raises
    ------
    PrerequisiteError
        If the CA bundle is not there.
    """
    from valska.external_tools.core.images.building.environment import find_ca_bundle

    environ = dict(os.environ) if environ is None else environ
    said = any(environ.get(name, "").lower() in ("1", "true", "yes") for name in _PLAIN)
    bundle = find_ca_bundle(ca_bundle, environ)
    return Http(plain=no_https or said, ca_bundle=bundle, environ=environ)

"""What an image build gets of the machine around it: variables, certificates, a private /tmp."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.scratch import claim_directory, remove_directory

CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PASSED_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
)
"""Settings of pip that a build takes over from the caller. They are not recorded."""

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_HOST_VARIABLES = frozenset(
    (
        *("PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "TERM", "TMPDIR"),
        *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
        *_PROXIES,
        *(name.upper() for name in _PROXIES),
    )
)
_SAME = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""What programs of a build are to agree on, wherever it runs."""

_SAME_PYTHON = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
"""The byte-code that imports would leave depends on what happened: an index that answered late."""

_IN_BUILD = Path("/tmp")  # noqa: S108 - the container's, which is private
_CA_IN_BUILD = _IN_BUILD / ".valska" / "ca.pem"
_WHEELS_IN_BUILD = _IN_BUILD / ".valska" / "wheels"
_USABLE = re.compile(r"[\w /.@%+=~-]+")
"""What Apptainer neither cuts nor takes for shell syntax in the name of its own directory."""

log = logging.getLogger(__name__)


def build_environment(
    environ: Mapping[str, str],
    work: Path,
    ca_bundle: Path | None,
    epoch: str,
    *,
    offline: bool = False,
) -> dict[str, str]:
    """Return the environment of a build, and put the certificates where it finds them.

    Few variables of the caller are kept, since Apptainer hands them all to ``%test``.

    Parameters
    ----------
    environ
        The caller's environment.
    work
        The workspace; its ``tmp`` is the build's ``/tmp``.
    ca_bundle
        Certificates to trust.
    epoch
        Seconds since 1970: no file of the image is to be newer.
    offline
        Have pip take packages from `wheels_in` the workspace only.
    """
    kept = programs.clean_environment(environ)
    host = {
        name: value
        for name, value in kept.items()
        if name in _HOST_VARIABLES or name.startswith("APPTAINER")
    }
    inside = {name: environ[name] for name in PASSED_VARIABLES if environ.get(name)}
    if offline:
        inside = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": os.fspath(_WHEELS_IN_BUILD)}
    inside["PIP_PROGRESS_BAR"] = "off"
    if ca_bundle is not None:
        place = _outside(work, _CA_IN_BUILD)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ca_bundle, place)
        inside |= dict.fromkeys(CA_VARIABLES, os.fspath(_CA_IN_BUILD))
        host["SSL_CERT_FILE"] = os.fspath(ca_bundle)
    inside |= {**_SAME, **_SAME_PYTHON, "SOURCE_DATE_EPOCH": epoch}
    host |= {**_SAME, "SOURCE_DATE_EPOCH": epoch}
    own = {f"APPTAINERENV_{name}": value for name, value in inside.items()}
    return {**host, **own, "APPTAINER_TMPDIR": os.fspath(work)}


def wheels_in(work: Path) -> Path:
    """Return where in a workspace the packages for a build without a network go."""
    return _outside(work, _WHEELS_IN_BUILD)


def _outside(work: Path, path: Path) -> Path:
    return work / "tmp" / path.relative_to(_IN_BUILD)


def find_ca_bundle(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the certificates to trust: those named, else those of the environment, else None.

    Raises
    ------
    PrerequisiteError
        If the named file is not there.
    """
    if named is not None:
        if not named.is_file():
            raise PrerequisiteError(
                f"no such CA bundle: {named}",
                "Check --ca-bundle, or ca_bundle in the configuration.",
            )
        return named.absolute()
    paths = (Path(environ[name]) for name in CA_VARIABLES if environ.get(name))
    return next((path.absolute() for path in paths if path.is_file()), None)


def needs_fakeroot() -> bool:
    """Tell whether this is a root that lacks capabilities, as root in a container often does."""
    if os.geteuid() != 0:
        return False
    try:
        status = Path("/proc/self/status").read_text()
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return False
    held = next((line for line in status.splitlines() if line.startswith("CapPrm:")), "CapPrm: 0")
    return int(held.split()[1], 16) != (1 << (last + 1)) - 1


@contextmanager
def workspace(environ: Mapping[str, str]) -> Iterator[Path]:
    """Make a private temporary directory, with a ``tmp`` in it, for the length of a block.

    Raises
    ------
    PrerequisiteError
        If it cannot be made.
    """
    parent = environ.get("APPTAINER_TMPDIR") or environ.get("TMPDIR") or tempfile.gettempdir()
    if not _USABLE.fullmatch(parent):
        raise PrerequisiteError(
            f"Apptainer cannot unpack in {parent!r}: its name has punctuation that it trips over",
            "Set TMPDIR to another directory with some gigabytes of free space.",
        )
    try:
        work = claim_directory(Path(parent).absolute(), "valska-build-")
        (work / "tmp").mkdir()
        (work / "tmp").chmod(0o1777)
    except OSError as error:
        raise PrerequisiteError(
            f"no temporary directory can be made in {parent}: {error.strerror}",
            "Set TMPDIR to a directory with some gigabytes of free space.",
        ) from error
    try:
        yield work
    finally:
        remove_directory(work)

"""Which files of packages a lock needs, and where an index has them."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images.building.environment import find_ca_bundle
from valska.external_tools.core.images.locking.document import Lock
from valska.external_tools.core.process import Run, run

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,254}\.(?:whl|tar\.gz|zip)")
"""Names of files of packages; no other is taken from an index or from a kit."""

GLIBC = "2_40"
"""Wheels for newer versions are left out: no base of today has them."""

_MACHINES = {
    "linux/amd64": "x86_64",
    "linux/arm64": "aarch64",
    "linux/ppc64le": "powerpc64le",
    "linux/s390x": "s390x",
    "linux/riscv64": "riscv64",
}
_HASH = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})\b")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*(?:==\s*([^\s;]+)|@)")
_UV_NAMES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
}
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that a lock pins.

    Parameters
    ----------
    name
        As ``name==version``.
    hashes
        SHA-256 of the files that may be installed.
    conditional
        Whether it is for some environments only.
    """

    name: str
    hashes: frozenset[str]
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of a package on an index: its name, digest, where it is, and bytes if known."""

    name: str
    sha256: str
    url: str
    size: int | None = None


def requirements(pins: str) -> tuple[Requirement, ...]:
    """Return the packages that the text of a lock pins."""
    joined = re.sub(r"\\\r?\n", " ", pins)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return tuple(
        Requirement(
            f"{match[1]}=={match[2]}" if match[2] else match[1],
            frozenset(_HASH.findall(line)),
            ";" in line,
        )
        for line in lines
        if (match := _NAMED.match(line))
    )


def fits(name: str, python: str, platform: str) -> bool:
    """Return whether a file of a package can be installed for a Python on a platform.

    Parameters
    ----------
    name
        Of the file. A source archive fits everywhere.
    python
        Version, as ``3.11``.
    platform
        As ``linux/amd64``.
    """
    if not name.endswith(".whl"):
        return True
    parts = name.removesuffix(".whl").split("-")
    if len(parts) not in (5, 6):
        return False
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    machine = _MACHINES.get(platform, "").replace("powerpc", "ppc")
    runs = any(p == "any" or _is_for(p, machine) for p in platforms)
    return runs and any(_loads(p, abi, python) for p in pythons for abi in abis)


def _is_for(platform: str, machine: str) -> bool:
    return bool(machine) and re.fullmatch(rf"(?:\w*linux\w*_){machine}", platform) is not None


def _loads(tag: str, abi: str, python: str) -> bool:
    major, minor = (*python.split("."), "0")[:2]
    match = re.fullmatch(r"(py|cp)(\d)(\d*)", tag)
    if match is None or match[2] != major:
        return False
    older = not match[3] or int(match[3]) <= int(minor)
    if match[1] == "py":
        return older and abi == "none"
    same = match[3] == minor
    return (same and abi in (tag, "none")) or (older and abi == "abi3")


def uncovered(
    wanted: Iterable[Requirement], names: Mapping[str, str], python: str, platform: str
) -> tuple[Requirement, ...]:
    """Return the packages for which no file is there.

    Parameters
    ----------
    wanted
        What a lock pins; what is conditional is not insisted upon.
    names
        SHA-256 to name of the files that are there.
    python, platform
        See `fits`.
    """
    return tuple(
        one
        for one in wanted
        if not one.conditional
        and not any(h in names and fits(names[h], python, platform) for h in one.hashes)
    )


def python_and_platform(lock: Lock, name: str, platform: str | None = None) -> tuple[str, str]:
    """Return the version of Python and the platform that a lock is for.

    Raises
    ------
    UsageError
        If the lock does not say so, or is for another platform than `platform`.
    """
    if lock.python is None or lock.platform is None:
        raise UsageError(
            f"{name} does not say for which Python and platform it is",
            "Write it anew with `valska lock`.",
        )
    if platform is not None and platform != lock.platform:
        raise UsageError(
            f"{name} is for {lock.platform}, not for {platform}",
            "Leave --platform out, or lock the definition for that platform.",
        )
    return lock.python, lock.platform


def find_files(
    pins: str,
    python: str,
    platform: str,
    scratch: Path,
    *,
    environ: Mapping[str, str],
    run: Run = run,
) -> tuple[PackageFile, ...]:
    """Ask the index for the files that a lock allows and that fit.

    All that fit are returned, since it is for the Python in the image to choose among them. Of
    a package without a wheel that fits, the source archive is.

    Parameters
    ----------
    pins
        Requirements with hashes.
    python, platform
        See `fits`.
    scratch
        A directory to work in.
    environ
        The caller's environment: pip's settings of indexes, proxies and certificates hold.

    Raises
    ------
    PrerequisiteError
        If the index does not answer, or has no file of a package.
    UsageError
        If uv does not know the platform.
    """
    if platform not in _MACHINES:
        raise UsageError(
            f"no packages are known for {platform}", f"Known: {', '.join(sorted(_MACHINES))}."
        )
    (scratch / "lock.txt").write_text(pins, encoding="utf-8")
    done = run(
        (*_uv(), "--python-version", python, "--python-platform", _uv_platform(platform)),
        cwd=scratch,
        env=_environment(environ),
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise _unanswered(done.stderr)
    return tuple(_chosen(tomllib.loads(done.stdout), requirements(pins)))


def _uv() -> tuple[str, ...]:
    from uv import find_uv_bin

    words = "pip compile lock.txt --no-deps --generate-hashes --format pylock.toml --quiet"
    return (find_uv_bin(), *words.split(), "--index-strategy", "unsafe-best-match")


def _uv_platform(platform: str) -> str:
    machine = _MACHINES[platform]
    known = machine in ("x86_64", "aarch64")
    return f"{machine}-manylinux_{GLIBC}" if known else f"{machine}-unknown-linux-gnu"


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for uv: its own settings, else what pip's say."""
    pips = {new: environ[old] for old, new in _UV_NAMES.items() if environ.get(old)}
    bundle = find_ca_bundle(None, environ)
    certificates = {"SSL_CERT_FILE": os.fspath(bundle)} if bundle else {}
    return {**pips, **environ, **certificates, "UV_PYTHON_DOWNLOADS": "never"}


def _unanswered(stderr: str) -> PrerequisiteError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    why = "; ".join(line.removeprefix("error: ") for line in lines[:4]) or "no message"
    return PrerequisiteError(
        f"the files of the locked packages cannot be looked up: {why}",
        "A network, or an index that can be reached ($PIP_INDEX_URL), is needed to fetch.",
    )


def _chosen(answer: Mapping[str, object], wanted: Iterable[Requirement]) -> Iterator[PackageFile]:
    listed = {file.sha256: file for file in _listed(answer)}
    for one in wanted:
        mine = [listed[digest] for digest in sorted(one.hashes & listed.keys())]
        wheels = [file for file in mine if file.name.endswith(".whl")]
        if not mine and not one.conditional:
            raise PrerequisiteError(
                f"the index has no file of {one.name} with a digest of the lock",
                "Write the lock anew with `valska lock`, or name the index that it was made from.",
            )
        yield from wheels or mine


def _listed(answer: Mapping[str, object]) -> Iterator[PackageFile]:
    packages = answer.get("packages", [])
    assert isinstance(packages, list)  # noqa: S101 - what uv writes follows its specification
    for package in packages:
        for entry in (*package.get("wheels", ()), *filter(None, [package.get("sdist")])):
            url = entry.get("url") or Path(entry["path"]).absolute().as_uri()
            name = entry.get("name") or unquote(urlsplit(url).path.rpartition("/")[2])
            if FILE_NAME.fullmatch(name):
                yield PackageFile(name, entry["hashes"]["sha256"], url, entry.get("size"))

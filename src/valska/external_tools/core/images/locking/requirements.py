"""Requirements resolved to hashed pins by uv, which comes as a package with valska."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images.building.environment import find_ca_bundle
from valska.external_tools.core.images.locking.pins import check_pins
from valska.external_tools.core.process import Completed, Run, run

TIMEOUT_S = 900.0

_PLATFORMS = {
    "linux/amd64": "x86_64-unknown-linux-gnu",
    "linux/arm64": "aarch64-unknown-linux-gnu",
    "linux/riscv64": "riscv64-unknown-linux",
}
_NETWORK = re.compile(
    r"error sending request|client error \(Connect\)|dns error|timed out"
    r"|connection (?:refused|reset)|Failed to (?:fetch|download)|Network connectivity is disabled"
    r"|network was disabled",
    re.IGNORECASE,
)
_NO_SOLUTION = "No solution found"
_CAUSE = re.compile(r"(?:cause|Caused by): |╰─▶ ")
_SHOWN_LINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What to resolve.

    Parameters
    ----------
    requirements
        The file of requirements.
    pins
        The pins so far: kept as far as they fit.
    python, platform
        For which Python (``3.11``), and where (``linux/amd64``).
    upgrade
        Keep none of the pins.
    upgrade_packages
        Do not keep the pins of these.
    ca_bundle
        Certificates to trust; those of the environment if None.
    environ
        The environment: uv's own settings, proxies, pip's index.
    """

    requirements: Path
    pins: str
    python: str
    platform: str
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def resolve_requirements(wanted: Resolution, *, run: Run = run) -> str:
    """Return requirements as pins with hashes, as pip reads them.

    Raises
    ------
    UsageError
        If they cannot be met, or the file or the platform is not one that uv understands; the
        message is uv's own. Also if the pins cannot be written down, see `check_pins`.
    PrerequisiteError
        If the package index cannot be reached, or uv is missing.
    """
    with tempfile.TemporaryDirectory(prefix="valska-lock-") as scratch:
        output = Path(scratch) / "requirements.lock"
        output.write_text(wanted.pins, encoding="utf-8")
        done = run(
            _command(wanted, output),
            cwd=wanted.requirements.parent.absolute(),
            env=_environment(wanted),
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise _explain(wanted, done)
        pins = output.read_text(encoding="utf-8")
    check_pins(pins, wanted.requirements.name)
    return pins


def resolver() -> str:
    """Return the program that resolves, with its version."""
    return f"uv {version('uv')}"


def check_platform(platform: str) -> None:
    """Check that uv can resolve for a platform.

    Raises
    ------
    UsageError
        If it cannot.
    """
    if _triple(platform) is None:
        raise UsageError(
            f"requirements cannot be resolved for {platform!r}", f"Known: {', '.join(_PLATFORMS)}."
        )


def _triple(platform: str) -> str | None:
    """Return what uv calls a platform; a variant (``linux/arm64/v8``) makes no difference."""
    return _PLATFORMS.get("/".join(platform.split("/")[:2]))


def _command(wanted: Resolution, output: Path) -> list[str]:
    upgrades = [word for name in wanted.upgrade_packages for word in ("--upgrade-package", name)]
    return [
        _program(),
        *("pip", "compile", wanted.requirements.name, "--output-file", os.fspath(output)),
        *("--generate-hashes", "--no-header", "--quiet", "--no-progress", "--color", "never"),
        *("--no-emit-index-url", "--no-emit-find-links"),  # a user's uv.toml may ask for them
        *("--python-version", wanted.python, "--python-platform", str(_triple(wanted.platform))),
        *("--python", sys.executable, "--no-python-downloads"),
        *(["--upgrade"] if wanted.upgrade else []),
        *upgrades,
    ]


def _program() -> str:
    try:
        import uv

        return os.fsdecode(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise PrerequisiteError(
            "uv, which resolves requirements, is not installed", "Install it: pip install uv"
        ) from error


def _environment(wanted: Resolution) -> dict[str, str]:
    """Return uv's environment: its own variables, else what pip's say."""
    env = dict(wanted.environ)
    for theirs, ours in (
        ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ):
        if env.get(theirs) and not env.get(ours):
            env[ours] = env[theirs]
    # The system's certificates count, as for pip; the second name is that of older versions.
    env.setdefault("UV_SYSTEM_CERTS", "1")
    env.setdefault("UV_NATIVE_TLS", "1")
    bundle = find_ca_bundle(wanted.ca_bundle, wanted.environ)
    if bundle is not None:
        env["SSL_CERT_FILE"] = os.fspath(bundle)
    return env


def _explain(wanted: Resolution, done: Completed) -> UsageError | PrerequisiteError:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("warning:")] or ["no message"]
    said = _sentence(lines[-_SHOWN_LINES:])
    if _NETWORK.search(done.stderr):
        return PrerequisiteError(
            f"the package index cannot be reached: {said}",
            "Check the network, or name another index with $UV_DEFAULT_INDEX or $PIP_INDEX_URL.",
        )
    pinned = wanted.pins.strip() and not wanted.upgrade and _NO_SOLUTION in done.stderr
    more = ", or give --upgrade if its own pins are in the way" if pinned else ""
    return UsageError(
        f"{wanted.requirements.name} cannot be resolved: {said}",
        f"Change {wanted.requirements.name}{more}.",
    )


def _sentence(lines: Sequence[str]) -> str:
    """Return what uv said on some lines as one, each cause after a colon."""
    text = ""
    for line in lines:
        cause = _CAUSE.match(line)
        rest = line[cause.end() :] if cause else line
        text += f": {rest}" if cause and text else f" {rest}"
    return text.removeprefix(" error: ").strip()

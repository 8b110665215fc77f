"""What pip, uv and conda install without a hash of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.script import Script
from valska.external_tools.core.images.linting.shell import Command
from valska.external_tools.core.images.linting.sources import COMMIT
from valska.external_tools.core.images.linting.words import option_names, options
from valska.external_tools.core.images.locking.pins import unhashed

LOCK_HINT = "Pin it by hash: name it in a file X.in, and let `valska lock` make the lock of it."

_PIP_VALUES = option_names(
    "-r --requirement --requirements -c --constraint --constraints -e --editable -i --index-url "
    "--index --extra-index-url -f --find-links -t --target --prefix --root --python-version "
    "--platform --abi --implementation --no-binary --only-binary --progress-bar --cert --proxy "
    "--timeout --retries --log --cache-dir --upgrade-strategy --use-feature --config-settings -C "
    "--global-option --python -p --report --trusted-host --src -b --build -d --dest -w "
    "--wheel-dir --group --override --link-mode --exclude-newer --prerelease --resolution"
)
_CONDA_VALUES = option_names(
    "-n --name -p --prefix -c --channel -f --file --solver --platform --rc-file -r --root-prefix "
    "--subdir --kind --revision --repodata-fn --experimental"
)
_PIP = re.compile(r"pip(?:3(?:\.\d+)?)?")
_PYTHON = re.compile(r"(?:python|pypy)(?:3(?:\.\d+)?)?")
_CONDAS = frozenset(("conda", "mamba", "micromamba"))
_PIP_VERBS = frozenset(("install", "sync", "download", "wheel"))
_CONDA_VERBS = frozenset(("install", "create", "update", "upgrade"))
_URL_HASH = re.compile(r"#(?:.*&)?(?:sha(?:224|256|384|512)=)[0-9a-f]{56,}")
_LOCAL = re.compile(r"[./~$]|.*/|.*\.(?:whl|tar\.gz|zip)$")


@dataclass(frozen=True, slots=True)
class _Install:
    """What an installer was told."""

    command: Command
    options: list[tuple[str, str]]
    names: list[str]

    def has(self, *names: str) -> bool:
        """Return whether an option is there."""
        return any(name in names for name, _ in self.options)

    def values(self, *names: str) -> list[str]:
        """Return the values of an option."""
        return [value for name, value in self.options if name in names]


def check_python_packages(script: Script) -> Iterator[Finding]:
    """Find what is installed without a hash."""
    for command in script.commands:
        words = _installer(command)
        for check in _CHECKS:
            yield from check(script, command, words)


def _installer(command: Command) -> list[str]:
    """Return the words of an installer, with ``pip`` first where Python or uv runs it."""
    words = [command.program, *command.words[1:]]
    if _PYTHON.fullmatch(words[0]):
        modules = [at for at, word in enumerate(words[:4]) if re.fullmatch(r"-[A-Za-z]*m", word)]
        words = words[modules[0] + 1 :] if modules else words
    if words[:2] == ["uv", "pip"]:
        words = words[1:]
    return words


def _check_pip(script: Script, command: Command, words: list[str]) -> Iterator[Finding]:
    if not words or not _PIP.fullmatch(words[0]):
        return
    found, others = options(words[1:], _PIP_VALUES)
    if not others or others[0] not in _PIP_VERBS:
        return
    install = _Install(command, found, others[1:])
    if install.has("--no-index") or command.settings.get("PIP_NO_INDEX", "0") not in ("0", ""):
        return
    lists = install.values("-r", "--requirement", "--requirements")
    names = install.names
    if others[0] == "sync":
        lists, names = [*lists, *names], []
    for listed in lists:
        yield from _check_list(script, install, listed)
    for name in [*names, *install.values("-e", "--editable")]:
        yield from _check_name(install, name)
    if command.appended or not (lists or names or install.has("-e", "--editable")):
        message = f"what {words[0]} installs here cannot be seen"
        yield _error(command, "pip-name", message, LOCK_HINT)


def _check_list(script: Script, install: _Install, listed: str) -> Iterator[Finding]:
    required = install.command.settings.get("PIP_REQUIRE_HASHES", "0") not in ("0", "", "false")
    if not (required or install.has("--require-hashes")):
        message = f"what {listed} names is installed without --require-hashes"
        yield _error(install.command, "pip-hashes", message, "Add --require-hashes.")
    if re.match(r"https?://", listed):
        message = f"the requirements are those of {listed} today"
        hint = "Put the file beside the definition, and copy it in with %files."
        yield _error(install.command, "pip-hashes", message, hint)
    text = script.content(listed)
    if text is None:
        return
    source = script.source(listed)
    bare = unhashed(text)
    if bare:
        more = f", nor have {len(bare) - 1} others" if len(bare) > 1 else ""
        message = f"{bare[0]!r} in {source.name if source else listed} has no hash{more}"
        yield _error(install.command, "pip-hashes", message, "`valska lock` writes the hashes.")


def _check_name(install: _Install, name: str) -> Iterator[Finding]:
    command = install.command
    if "://" in name:
        if not (_URL_HASH.search(name) or (name.startswith("git+") and COMMIT.search(name))):
            message = f"{name} is installed without a hash"
            hint = "Add #sha256=<64 digits> to the address; for git+…, name a commit by 40 digits."
            yield _error(command, "fetch-unchecked", message, hint)
    elif not _LOCAL.match(name):
        message = f"{name} is installed by name: another day gives other files"
        yield _error(command, "pip-name", message, LOCK_HINT)
    elif not install.has("--no-deps"):
        message = f"what {name} depends on is installed without hashes"
        hint = "Install what it needs from a lock first, and then it with --no-deps."
        yield _error(command, "pip-name", message, hint)


def _check_uv(script: Script, command: Command, words: list[str]) -> Iterator[Finding]:
    if words[:1] == ["uvx"] or (words[:1] == ["pipx"] and words[1:2] != ["list"]):
        yield _error(command, "pip-name", f"{words[0]} installs by name", LOCK_HINT)
    if words[:1] != ["uv"] or len(words) < 2:
        return
    verb = " ".join(word for word in words[1:3] if not word.startswith("-"))
    locked = {"--locked", "--frozen"} & {*words}
    if words[1] in ("sync", "run") and not locked:
        hint = "Add --locked: uv.lock has the hashes."
        yield _error(command, "pip-hashes", f"uv {words[1]} may change the lock", hint)
    elif words[1] == "add" or verb in ("tool install", "tool run", "python install"):
        yield _error(command, "pip-name", f"uv {verb} installs by name", LOCK_HINT)


def _check_conda(script: Script, command: Command, words: list[str]) -> Iterator[Finding]:
    if not words or words[0] not in _CONDAS:
        return
    found, others = options(words[1:], _CONDA_VALUES)
    verbs = [word for word in others[:2] if word != "env"]
    if not verbs or verbs[0] not in _CONDA_VERBS:
        return
    install = _Install(command, found, others[others.index(verbs[0]) + 1 :])
    if install.has("--offline"):
        return
    for name in install.names:
        if not re.search(r"#(?:sha256:)?[0-9a-f]{32,}$", name):
            message = f"{name} is installed by name: another day gives other files"
            yield _error(command, "conda", message, _CONDA_HINT)
    lists = install.values("-f", "--file")
    for listed in lists:
        yield from _check_conda_list(script, command, listed)
    if verbs[0] in ("update", "upgrade") and not (install.names or lists):
        yield _error(
            command, "conda", f"{words[0]} {verbs[0]} takes whatever is newest", _CONDA_HINT
        )


def _check_conda_list(script: Script, command: Command, listed: str) -> Iterator[Finding]:
    text = script.content(listed)
    if text is None:
        if listed.endswith((".yml", ".yaml")):
            message = f"{listed} names packages, not their digests"
            yield _error(command, "conda", message, _CONDA_HINT)
        return
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    bare = [line for line in lines if line != "@EXPLICIT" and not re.search(r"#\S{32,}$", line)]
    if bare or (lines and "@EXPLICIT" not in lines):
        message = f"{listed} does not name every package by address and digest"
        yield _error(command, "conda", message, _CONDA_HINT)


_CONDA_HINT = "Write an explicit list (`conda list --explicit --md5`), and install from that."
_CHECKS: tuple[Callable[[Script, Command, list[str]], Iterator[Finding]], ...] = (
    _check_pip,
    _check_uv,
    _check_conda,
)


def _error(command: Command, code: str, message: str, hint: str) -> Finding:
    return Finding(command.line, "error", code, message, hint)

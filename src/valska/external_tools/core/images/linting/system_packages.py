"""What apt, apk, dnf and their like install without an exact version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.script import Script
from valska.external_tools.core.images.linting.shell import Command
from valska.external_tools.core.images.linting.words import option_names, options


@dataclass(frozen=True, slots=True)
class _Manager:
    """How a package manager is told what to install."""

    install: frozenset[str]
    upgrade: frozenset[str]
    exact: re.Pattern[str]
    example: str
    values: frozenset[str]


_APT = _Manager(
    install=frozenset(("install", "reinstall", "build-dep", "satisfy", "source")),
    upgrade=frozenset(("upgrade", "dist-upgrade", "full-upgrade")),
    exact=re.compile(r"[^=*<>]+=[^=*<>]+|.*/.*\.deb|\./.*"),
    example="NAME=1.2.3-4",
    values=option_names("-o --option -t --target-release --default-release -c --config-file"),
)
_APK = _Manager(
    install=frozenset(("add",)),
    upgrade=frozenset(("upgrade",)),
    exact=re.compile(r"[^=~<>*]+=[^=~<>*]+|.*/.*\.apk"),
    example="NAME=1.2.3-r4",
    values=option_names("-t --virtual -X --repository -p --root --arch --keys-dir"),
)
_DNF = _Manager(
    install=frozenset(("install", "reinstall", "localinstall", "groupinstall", "builddep", "in")),
    upgrade=frozenset(("update", "upgrade", "distro-sync", "dup", "patch")),
    exact=re.compile(r".+-(?:\d+:)?\d[\w.~^+]*-\d[\w.~^+]*|.*/.*\.rpm"),
    example="NAME-1.2.3-4.el9",
    values=option_names(
        "-c --config --enablerepo --disablerepo --repo --repoid --installroot --releasever "
        "--setopt --exclude -x --root -R"
    ),
)
_MANAGERS = {
    "apt-get": _APT,
    "apt": _APT,
    "aptitude": _APT,
    "apk": _APK,
    "dnf": _DNF,
    "dnf5": _DNF,
    "microdnf": _DNF,
    "yum": _DNF,
    "zypper": _DNF,
}


def check_system_packages(script: Script) -> Iterator[Finding]:
    """Find packages of the system that are installed in whatever version there is."""
    for command in script.commands:
        manager = _MANAGERS.get(command.program)
        if manager is not None:
            yield from _check(command, manager)
        elif command.program == "rpm":
            remote = [word for word in command.words[1:] if re.match(r"(?:https?|ftp)://", word)]
            if remote and "--import" not in command.words:
                yield _unchecked(command, remote[0])
        elif command.program == "pacman" and re.search(r" (?:-[a-z]*S|--sync)", command.text):
            message = "pacman installs whatever is newest"
            yield _error(command, message, "Take a base that has it, by its digest.")


def _check(command: Command, manager: _Manager) -> Iterator[Finding]:
    found, others = options(command.words[1:], manager.values)
    if others[:1] in (["module"], ["group"]):
        others = others[1:]
    verb, names = (others[0] if others else ""), others[1:]
    if {"--no-download", "--no-network", "--offline"} & {name for name, _ in found}:
        return
    if verb in manager.upgrade:
        message = f"{command.program} {verb} takes whatever is newest"
        yield _error(command, message, "Leave it out: take a newer base instead.")
    if verb not in manager.install:
        return
    remote = [name for name in names if "://" in name]
    if remote:
        yield _unchecked(command, remote[0])
    loose = [name for name in names if not manager.exact.fullmatch(name) and name not in remote]
    if loose:
        named = ", ".join(loose[:4]) + (f" and {len(loose) - 4} more" if len(loose) > 4 else "")
        message = f"{command.program} installs {named} without an exact version"
        yield _error(command, message, f"Write {manager.example} for each.")
    elif command.appended or not names:
        message = f"what {command.program} installs here cannot be seen"
        yield _error(command, message, f"Write {manager.example} for each.")


def _unchecked(command: Command, address: str) -> Finding:
    message = f"{address} is fetched, and nothing checks that it is what it was"
    hint = "Fetch it into a file, check that with sha256sum -c, and install the file."
    return Finding(command.line, "error", "fetch-unchecked", message, hint)


def _error(command: Command, message: str, hint: str) -> Finding:
    return Finding(command.line, "error", "packages", message, hint)

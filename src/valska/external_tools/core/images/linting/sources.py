"""What a script takes from elsewhere by git, by Python, or by another installer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.downloads import DIGEST
from valska.external_tools.core.images.linting.script import Script
from valska.external_tools.core.images.linting.shell import Command
from valska.external_tools.core.images.linting.words import option_names, options

COMMIT = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")

_GIT_VALUES = option_names("-C -c --git-dir --work-tree")
_HERE = ("/", "./", "../", "file:")
_OTHER = {
    "npm": ("install", "i", "add"),
    "yarn": ("add",),
    "pnpm": ("add",),
    "gem": ("install",),
    "cargo": ("install",),
    "go": ("install", "get"),
    "svn": ("checkout", "co", "export"),
    "hg": ("clone",),
    "rsync": (),
    "scp": (),
    "cpan": (),
    "cpanm": (),
    "easy_install": (),
    "ftp": (),
    "lftp": (),
    "sftp": (),
}
_OTHER_TEXT = re.compile(r"install\.packages\(|BiocManager::install|install_github|Pkg\.add")
_PYTHON = re.compile(
    r"\burlopen\(|\burlretrieve\(|\brequests\.(?:get|post)\(|\bhttpx\.(?:get|stream)\("
    r"|\bwget\.download\(|\b(?:hf_hub|snapshot)_download\(|\bftplib\."
)


def check_sources(script: Script) -> Iterator[Finding]:
    """Find what is taken from elsewhere in a state that can change."""
    for command in script.commands:
        yield from _check_other(command)
    yield from _check_clones(script)


def _check_clones(script: Script) -> Iterator[Finding]:
    """Find clones without a commit, checked out at full length, that is theirs."""
    pins = [command for command in script.commands if _is_pin(command)]
    place = {id(command): i for i, command in enumerate(script.commands)}
    for command in reversed([c for c in script.commands if _is_clone(c)]):
        if COMMIT.search(command.text):
            continue
        own = [pin for pin in pins if place[id(pin)] > place[id(command)]]
        if own:
            pins.remove(own[0])
            continue
        yield _unpinned_git(command, f"git {_git_verb(command)} takes what is newest there")


def _git_verb(command: Command) -> str:
    _, others = options(command.words[1:], _GIT_VALUES)
    return others[0] if others else ""


def _is_clone(command: Command) -> bool:
    if command.program != "git":
        return False
    _, others = options(command.words[1:], _GIT_VALUES)
    if others[:1] == ["clone"]:
        return not any(word.startswith(_HERE) for word in others[1:2])
    newest = others[:2] == ["submodule", "update"] and "--remote" in command.words
    return newest or others[:1] in (["fetch"], ["pull"])


def _is_pin(command: Command) -> bool:
    return (
        command.program == "git"
        and _git_verb(command) in ("checkout", "reset", "switch")
        and COMMIT.search(command.text) is not None
    )


def _unpinned_git(command: Command, message: str) -> Finding:
    hint = "Check out a commit by its 40 digits: git checkout COMMIT."
    return Finding(command.line, "error", "fetch-unchecked", message, hint)


def _check_other(command: Command) -> Iterator[Finding]:
    if command.program.startswith("python"):
        yield from _check_python(command)
    verbs = _OTHER.get(command.program)
    by_verb = verbs is not None and (not verbs or bool({*command.words[1:2]} & {*verbs}))
    if command.program in ("rsync", "scp") and not any(":" in word for word in command.words[1:]):
        return
    if by_verb or (
        command.program in ("R", "Rscript", "julia") and _OTHER_TEXT.search(command.text)
    ):
        yield Finding(
            command.line,
            "warning",
            "fetch-other",
            f"{command.program} takes something from elsewhere, and what it is can change",
            "Take it from a file that %files copies in, or say why it cannot change.",
        )


def _check_python(command: Command) -> Iterator[Finding]:
    text = command.text
    if "hashlib" in text and DIGEST.search(text):
        return
    for number, line in _python_lines(command):
        if _PYTHON.search(line):
            message = "Python fetches something here, and nothing seems to check what it is"
            hint = "Compare hashlib.sha256(data).hexdigest() with the digest that it has to have."
            yield Finding(number, "warning", "fetch-python", message, hint)
            return


def _python_lines(command: Command) -> Iterator[tuple[int, str]]:
    if command.input:
        yield from ((line.number, line.text) for line in command.input)
    else:
        yield command.line, "\n".join(command.words[1:])

"""What a script takes from the network without knowing what it will get."""

from __future__ import annotations

import re
from collections.abc import Iterator

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.script import Script, basename
from valska.external_tools.core.images.linting.shell import Command
from valska.external_tools.core.images.linting.words import option_names, options

DIGEST = re.compile(r"\b(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})\b")
_DIGEST_PROGRAM = re.compile(
    r"\b(?:sha(?:224|256|384|512)sum|b2sum|b3sum|shasum|openssl\s+(?:dgst|sha\d+)|hashlib)\b"
)
_SUMS = re.compile(r"(?:sha(?:224|256|384|512)|b2|b3)sum|shasum")
_VALUES = {
    "curl": option_names(
        "-o --output -H --header -d --data -u --user -A --user-agent -e --referer -x --proxy -m "
        "--max-time --retry --retry-delay --retry-max-time --connect-timeout --cacert --cert -E "
        "--key -T -X --request -b --cookie -c --cookie-jar -C --continue-at -r --range -w "
        "--write-out -K --config --output-dir --url --limit-rate -y -Y --proto --resolve"
    ),
    "wget": option_names(
        "-O --output-document -P --directory-prefix -o --output-file -a -t --tries -T --timeout "
        "--header -U --user-agent -i --input-file -w --wait --ca-certificate -e --execute "
        "--user --password -Q --limit-rate"
    ),
    "aria2c": option_names("-o --out -d --dir -x -s -i --input-file --checksum -j"),
    "axel": option_names("-o --output -n -a -H"),
}
_LOCAL = re.compile(r"-|file:|(?:https?://)?(?:localhost|127\.0\.0\.1|\[::1\])(?:[:/]|$)")
_PARAMETER = re.compile(r"\$\{?[1-9]\}?[ *]")
"""A digest that a function is handed."""
_OUTPUT = frozenset(("-o", "--output", "--output-document", "--out"))


def check_downloads(script: Script) -> Iterator[Finding]:
    """Find what curl, wget and their like fetch without a check."""
    for index, command in enumerate(script.commands):
        if command.program in _VALUES:
            yield from _check_download(script, index)


def _check_download(script: Script, index: int) -> Iterator[Finding]:
    command = script.commands[index]
    found, others = options(command.words[1:], _VALUES[command.program])
    named = dict(found)
    places = [*others, *(value for name, value in found if name == "--url")]
    listed = {"-i", "--input-file", "-K", "--config"} & named.keys()
    remote = [place for place in places if not _LOCAL.match(place)]
    if not (remote or listed or command.appended) or "--checksum" in named:
        return
    outputs = _outputs(script, command, found, remote)
    if outputs and all(_is_checked(script, index, name) for name in outputs):
        return
    what = remote[0] if remote else "what a list names"
    name = basename(outputs[0]) if outputs else "FILE"
    yield Finding(
        command.line,
        "error",
        "fetch-unchecked",
        f"{what} is fetched, and nothing checks that it is what it was",
        f"Keep it in a file, and check it: echo 'SHA256  {name}' | sha256sum -c",
    )


def _outputs(
    script: Script, command: Command, found: list[tuple[str, str]], remote: list[str]
) -> list[str]:
    """Return the names of the files that a download ends in."""
    flag = {"wget": "-O"}.get(command.program, "-o")
    outputs = [value for name, value in found if name in _OUTPUT - {"-o"} or name == flag]
    own_names = command.program != "curl" or any(n in ("-O", "--remote-name") for n, _ in found)
    own_names = own_names or any(re.fullmatch(r"-[A-Za-z]*O[A-Za-z]*", name) for name, _ in found)
    if not outputs and own_names:
        outputs = [basename(place) for place in remote]
    if not outputs or outputs == ["-"]:
        pipeline = script.statement(command.statement)
        outputs = [name for other in pipeline for name in other.writes]
        outputs += [
            word for other in pipeline if other.program == "tee" for word in other.words[1:]
        ]
    split = [part for name in outputs for part in name.split()]
    return [name for name in split if name and not name.startswith(("/dev/", "-"))]


def _is_checked(script: Script, index: int, name: str) -> bool:
    """Return whether a file is compared with a checksum after it was fetched."""
    statements = {command.statement for command in script.commands[index + 1 :]}
    for number in sorted(statements):
        commands = script.statement(number)
        if _is_ignored(script, commands):
            continue
        text = "\n".join(command.text for command in commands)
        if not _mentions(text, name) and not any(_is_sums(command) for command in commands):
            continue
        if _DIGEST_PROGRAM.search(text) and DIGEST.search(text) and _mentions(text, name):
            return True
        if any(_is_sums(command) and _covers(script, command, text, name) for command in commands):
            return True
    return False


def _is_ignored(script: Script, commands: tuple[Command, ...]) -> bool:
    """Return whether ``|| true`` follows in the same line."""
    following = script.statement(commands[0].statement + 1)
    return any(
        c.words in (("true",), (":",)) and c.line == commands[-1].last for c in following[:1]
    )


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(basename(name) or name)}(?![\w-])", text) is not None


def _is_sums(command: Command) -> bool:
    """Return whether a command compares files with a list of checksums."""
    return _SUMS.fullmatch(command.program) is not None and any(
        word.startswith("--check") or re.fullmatch(r"-[a-z]*c[a-z]*", word)
        for word in command.words[1:]
    )


def _covers(script: Script, command: Command, statement: str, name: str) -> bool:
    """Return whether a check's list has a file; a list that was fetched proves nothing."""
    words = (*command.words[1:], *command.reads)
    lists = [word for word in words if not word.startswith("-") and not word.isdigit()]
    if lists:
        texts = [_content(script, listed) for listed in lists]
        return any(text is None or _mentions(text, name) for text in texts)
    if DIGEST.search(statement) or _PARAMETER.search(statement):
        return _mentions(statement, name)
    piped = (w for c in script.statement(command.statement) for w in (*c.words[1:], *c.reads))
    known = (_content(script, word) or "" for word in piped)
    return any(DIGEST.search(text) and _mentions(text, name) for text in known)


def _is_fetched(script: Script, name: str) -> bool:
    for command in script.commands:
        if command.program in _VALUES:
            found, others = options(command.words[1:], _VALUES[command.program])
            outputs = _outputs(script, command, found, others)
            if basename(name) in map(basename, outputs):
                return True
    return False


def _content(script: Script, name: str) -> str | None:
    """Return what is in a list of checksums, as far as it is known.

    It is copied in, or written in plain words. One that was fetched, or that the script computes,
    says nothing of what should be there: it counts as empty.
    """
    if _is_fetched(script, name):
        return ""
    writers = [
        "\n".join(other.text for other in script.statement(command.statement))
        for command in script.commands
        if basename(name) in map(basename, command.writes)
    ]
    text = "\n".join(writers)
    if DIGEST.search(text):
        return text
    return "" if _DIGEST_PROGRAM.search(text) else script.content(name)

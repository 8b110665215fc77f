"""Write docs/reference/cli.md from the commands themselves, and check the documentation's links.

usage: make_reference.py [--check]

With --check nothing is written; the exit code is 1 if the file is stale or a link leads nowhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent

import click

from valska.cli import main

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference" / "cli.md"

_LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEAD = """\
# Commands

Made by `make docs` from the commands themselves; do not edit it by hand.

Results go to stdout, everything else to stderr. The exit codes are in
[exit-codes.md](exit-codes.md).

`valska-pyuvsim-prepare …` is `valska bundle pyuvsim …`, `valska-pyuvsim-sweep …` is
`valska sweep pyuvsim …`, and `valska-pyuvsim-submit …` is `valska submit …`, for runs of pyuvsim
only; the same for `valska-bayeseor-…`. Options that a tool adds are in the help of the verb with
that tool: `valska bundle bayeseor --help`.
"""


def reference() -> str:
    """Return the text of the reference of all commands."""
    root = click.Context(main, info_name="valska")
    parts = [_HEAD, "## Global options", "They stand before the verb or after it.", _options(main)]
    for context in _contexts(root):
        parts += [f"## {context.command_path}", *_command(context)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def documents() -> list[Path]:
    """Return every Markdown file of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def broken_links(document: Path) -> list[str]:
    """Return the links of a document that lead to no file, or to no heading of one."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    links = [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    return [link for link in links if not _leads_somewhere(document, link)]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target))


def _contexts(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield from _contexts(click.Context(command, info_name=name, parent=context))


def _command(context: click.Context) -> Iterator[str]:
    arguments = [
        _argument(param) for param in context.command.params if isinstance(param, click.Argument)
    ]
    yield "```\n" + " ".join([context.command_path, "[OPTIONS]", *arguments]) + "\n```"
    yield from _paragraphs(context.command.help or "")
    table = _options(context.command, own=True)
    if table:
        yield table


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; one that click leaves as it is becomes code."""
    for paragraph in cleandoc(text.partition("\f")[0]).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield "```\n" + dedent(paragraph.removeprefix("\b\n")).rstrip() + "\n```"
        else:
            yield paragraph


def _argument(param: click.Argument) -> str:
    if param.metavar:
        return param.metavar
    if isinstance(param.type, click.Choice):
        return f"[{'|'.join(param.type.choices)}]"
    return (param.name or "").upper() if param.required else f"[{(param.name or '').upper()}]"


def _options(command: click.Command, *, own: bool = False) -> str:
    shared = {tuple(param.opts) for param in main.params} if own else set()
    rows = [
        f"| `{_names(param)}` | {_cell(param.help or '')} |"
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden and tuple(param.opts) not in shared
    ]
    return "\n".join(["| option | what it does |", "|---|---|", *rows]) if rows else ""


def _names(option: click.Option) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    names = "/".join([names, *option.secondary_opts])
    return _cell(names if option.is_flag or option.count else f"{names} {_value(option)}")


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    if isinstance(option.type, click.Path):
        return "FILE" if not option.type.dir_okay else "DIR"
    return option.type.name.upper()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _main(arguments: list[str]) -> int:
    found = [
        f"{document.relative_to(ROOT)}: {link} leads nowhere"
        for document in documents()
        for link in broken_links(document)
    ]
    text = reference()
    if arguments == ["--check"]:
        if not REFERENCE.is_file() or REFERENCE.read_text(encoding="utf-8") != text:
            found.append(f"{REFERENCE.relative_to(ROOT)} is stale: make docs")
    elif arguments:
        found = [(__doc__ or "").strip()]
    else:
        REFERENCE.write_text(text, encoding="utf-8")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))

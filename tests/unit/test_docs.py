"""The documentation agrees with the code: links, commands, keys, exit codes, exports."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import click
import pytest

import valska
from valska.cli import main
from valska.external_tools.core import errors
from valska.external_tools.core.schema import load_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "<", "&"}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load(DOCS / "make_reference.py")


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands_in(text):
    """Return the words of every call of valska in the shell blocks of a document."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.commenters, lexer.whitespace_split = "#", True
            yield from calls_in(list(lexer))


def calls_in(words):
    """Return the calls of valska among the words of a line, without what the shell reads."""
    call = []
    for word in [*words, ";"]:
        if word not in OPERATORS:
            call.append(word)
            continue
        if call and call[0] == "valska":
            yield call
        call = []


def parse(words):
    """Let the real command line read a call, as far as it goes without running it."""
    command, context = main, click.Context(main, info_name="valska")
    rest = words[1:]
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, parent=context, info_name=command.name)
    command.make_context(command.name, rest, parent=context.parent)


def section(text, heading):
    """Return the text below a heading, up to the next one of the same level."""
    level = heading.partition(" ")[0]
    return text.split(f"\n{heading}\n")[1].split(f"\n{level} ")[0]


def keys_in(text):
    """Return the names in the first column of the tables in a text."""
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_leads_somewhere(document):
    assert reference.broken_links(document) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("# Here it is\n[1](b.md) [2](#here-it-is) [3](#there) [4](https://x.org)\n")
    assert reference.broken_links(document) == ["b.md", "#there"]


def test_every_document_is_reached_from_the_index():
    text = (DOCS / "README.md").read_text()
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", text)}
    assert {path for path in DOCS.rglob("*.md") if path.name != "README.md"} <= linked


def test_the_reference_of_commands_is_current():
    found = (DOCS / "reference" / "cli.md").read_text()
    assert found == reference.reference(), "run: make docs"


def test_every_verb_has_a_section_in_the_reference():
    text = (DOCS / "reference" / "cli.md").read_text()
    for verb in main.list_commands(click.Context(main)):
        assert re.search(rf"^## valska {verb}\b", text, re.MULTILINE), verb


CALLS = [
    pytest.param(call, id=f"{name}: {shlex.join(call)}")
    for document, name in zip(DOCUMENTS, names(DOCUMENTS), strict=True)
    for call in commands_in(document.read_text())
]


@pytest.mark.parametrize("call", CALLS)
def test_every_command_in_the_documents_is_one(call):
    parse(call)


def test_a_wrong_command_is_found():
    text = "```sh\nvalska bundel x\nFOO=1 x; valska submit run1 --wiat  # so\n```\n"
    calls = list(commands_in(text))
    assert calls == [["valska", "bundel", "x"], ["valska", "submit", "run1", "--wiat"]]
    for call in calls:
        with pytest.raises(click.UsageError):
            parse(call)


def test_the_readme_shows_the_main_commands():
    calls = {call[1] for call in commands_in((ROOT / "README.md").read_text())}
    assert {"doctor", "build", "bundle", "submit", "status", "verify", "plot"} <= calls


@pytest.mark.parametrize(
    ("heading", "properties"),
    [
        ("## Keys of the site", ("properties",)),
        ("## Keys of a tool's section", ("$defs", "tool", "properties")),
    ],
)
def test_every_key_of_the_configuration_is_documented(heading, properties):
    schema = load_schema("runtime-paths-1")
    for name in properties:
        schema = schema[name]
    text = (DOCS / "reference" / "configuration.md").read_text()
    assert keys_in(section(text, heading)) == set(schema)


@pytest.mark.parametrize("path", names(DOCUMENTS))
def test_every_configuration_in_the_documents_is_valid(path, tmp_path):
    from valska.external_tools.core.config.file import read_runtime_paths

    for number, block in enumerate(blocks((ROOT / path).read_text(), "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        read_runtime_paths(file, tools=["pyuvsim", "wordcount"])


@pytest.mark.parametrize(
    ("heading", "schema", "pointer"),
    [
        ("## manifest.json", "manifest-1", ("properties",)),
        ("## records/", "stage-record-1", ("properties",)),
        ("## jobs.json", "jobs-1", ("properties",)),
        ("## jobs.json", "jobs-1", ("$defs", "job", "properties")),
        ("## manifest.json", "manifest-1", ("$defs", "stage", "properties")),
        ("## manifest.json", "manifest-1", ("$defs", "input", "properties")),
        ("## manifest.json", "manifest-1", ("$defs", "borrowed", "properties")),
    ],
)
def test_every_field_of_the_schemas_is_documented(heading, schema, pointer):
    fields = load_schema(schema)
    for name in pointer:
        fields = fields[name]
    text = (DOCS / "reference" / "bundle.md").read_text()
    assert set(fields) <= keys_in(section(text, heading))


@pytest.mark.parametrize(
    ("heading", "schema", "pointer"),
    [
        ("## sweep_manifest.json", "sweep-1", ("properties",)),
        ("## sweep_manifest.json", "sweep-1", ("$defs", "point", "properties")),
        ("## sweep_manifest.json", "sweep-1", ("$defs", "shared", "properties")),
        ("## manifest.json of a point", "point-1", ("properties",)),
    ],
)
def test_every_field_of_a_sweep_is_documented(heading, schema, pointer):
    fields = load_schema(schema)
    for name in pointer:
        fields = fields[name]
    text = (DOCS / "reference" / "sweep.md").read_text()
    assert set(fields) <= keys_in(section(text, heading))


def test_every_exit_code_is_documented():
    codes = {
        str(found.exit_code)
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.ValskaError)
    }
    text = section((DOCS / "reference" / "exit-codes.md").read_text(), "## valska")
    assert set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE)) == codes | {"0", "130", "143"}


def test_every_export_is_documented():
    text = (DOCS / "reference" / "api.md").read_text()
    documented = {name.partition("(")[0] for name in keys_in(text)}
    assert documented == set(valska.__all__)


@pytest.mark.parametrize("path", names(DOCUMENTS))
def test_examples_in_python_and_json_are_whole(path):
    text = (ROOT / path).read_text()
    for block in blocks(text, "python"):
        compile(block, path, "exec")
    for block in blocks(text, "json"):
        json.loads(block)


def test_pictures_are_small():
    for picture in DOCS.glob("*.png"):
        assert picture.stat().st_size < 200_000, picture.name

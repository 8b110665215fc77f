"""Authors, licences and citations."""

import pytest
import yaml

from valska.external_tools.core.archive.people import (
    Author,
    Description,
    Organisation,
    check_license,
    citation_text,
    merged,
    parse_author,
    parse_organisation,
    read_citation,
)
from valska.external_tools.core.errors import UsageError

ORCID = "0000-0002-1825-0097"


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("Ada", Author("Ada")),
        (f"Josiah Carberry <{ORCID}>", Author("Josiah Carberry", ORCID)),
        (f"J. C. <https://orcid.org/{ORCID}>", Author("J. C.", ORCID)),
        (f"J <{ORCID}>, Brown", Author("J", ORCID, Organisation("Brown"))),
        ("J, Brown <https://b.edu>", Author("J", None, Organisation("Brown", "https://b.edu"))),
    ],
)
def test_authors_are_read(text, author):
    assert parse_author(text) == author


@pytest.mark.parametrize(
    "text", ["", "<x>", "A <0000-0002-1825-0098>", "A <1>", "A <>", "A\nB", f"<{ORCID}>"]
)
def test_other_authors_are_refused(text):
    with pytest.raises(UsageError):
        parse_author(text)


def test_organisations_and_licences_are_checked():
    assert parse_organisation("Zenodo <https://zenodo.org>").url == "https://zenodo.org"
    assert check_license("CC-BY-4.0") == "CC-BY-4.0"
    assert check_license("https://example.org/l") == "https://example.org/l"
    for text in ("", "all rights", "ftp://x"):
        with pytest.raises(UsageError):
            check_license(text)
    with pytest.raises(UsageError):
        parse_organisation("<https://zenodo.org>")


def test_a_citation_is_written_and_read_again(tmp_path):
    about = Description(
        title="Sky: noise",
        authors=(Author("Josiah Carberry", ORCID, Organisation("Brown")), Author("Plato")),
        license="CC-BY-4.0",
    )
    path = tmp_path / "CITATION.cff"
    path.write_bytes(citation_text(about, "2026-01-02T03:04:05Z", "toy"))
    data = yaml.safe_load(path.read_text())
    assert data["cff-version"] == "1.2.0"
    assert data["date-released"] == "2026-01-02"
    again = read_citation(path)
    assert (again.title, again.authors, again.license) == (
        about.title,
        about.authors,
        about.license,
    )


def test_options_complete_a_citation_and_do_not_contradict_it(tmp_path):
    given = Description(title="T", authors=(Author("Plato"),), citation=b"as it is")
    zenodo = Organisation("Zenodo")
    asked = merged(given, Description(title="T", license="MIT", publisher=zenodo))
    assert (asked.title, asked.authors, asked.license) == ("T", given.authors, "MIT")
    assert (asked.publisher, asked.citation) == (zenodo, b"as it is")
    for option, other in [
        ("--title", Description(title="Other")),
        ("--author", Description(authors=(Author("Socrates"),))),
        ("--license", Description(license="BSD-3-Clause")),
    ]:
        with pytest.raises(UsageError, match=f"something else than {option}$"):
            merged(asked, other)


def test_a_licence_by_its_url_is_read_again(tmp_path):
    url = "https://example.org/l"
    about = Description(title="T", authors=(Author("Plato"),), license=url)
    path = tmp_path / "CITATION.cff"
    path.write_bytes(citation_text(about, "2026-01-02T03:04:05Z", "toy"))
    assert read_citation(path).license == url


@pytest.mark.parametrize("text", ["", "a: [", "title: x\n", "authors: 3\ntitle: x\n", "[1]"])
def test_other_citations_are_refused(tmp_path, text):
    path = tmp_path / "CITATION.cff"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_citation(path)

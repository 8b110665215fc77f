"""Who made what is archived, under what licence: for the crate and for ``CITATION.cff``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import UsageError

ORCID = "https://orcid.org/"

_AUTHOR = re.compile(r"([^<>,]+?)\s*(?:<([^<>]*)>)?\s*(?:,\s*(.+))?")
_ORGANISATION = re.compile(r"([^<>]+?)\s*(?:<(https?://[^<>\s]+)>)?")
_ORCID = re.compile(r"(?:https?://orcid\.org/)?([0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X])")
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_CHECK = "0123456789X"


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation, and where it is described, such as its ROR."""

    name: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Author:
    """A person; the ORCID as its four groups of digits."""

    name: str
    orcid: str | None = None
    affiliation: Organisation | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a publication needs to say of an archive.

    Parameters
    ----------
    title
        Of the archive; made from the run's name, if it is empty.
    authors
        Who made it.
    publisher
        Who publishes it, such as a repository.
    license
        SPDX identifier or URL; None if none is given.
    doi
        As ``10.…``, where there is one already.
    citation
        ``CITATION.cff`` as given, or None: then it is written, if there are authors.
    """

    title: str = ""
    authors: tuple[Author, ...] = ()
    license: str | None = None
    publisher: Organisation | None = None
    doi: str | None = None
    citation: bytes | None = field(default=None, repr=False)


def parse_author(text: str) -> Author:
    """Read ``Name <ORCID>, Affiliation <URL>``; all but the name can be missing.

    Raises
    ------
    UsageError
        If it has another form, or the ORCID's check digit is wrong.
    """
    match = _AUTHOR.fullmatch(text.strip())
    if not match or not match[1].strip() or not text.isprintable():
        raise UsageError(
            f"the author {text!r} is not of the form 'Name <ORCID>, Affiliation <URL>'",
            "Write 'Josiah Carberry <0000-0002-1825-0097>', or the name alone.",
        )
    return Author(
        match[1].strip(),
        parse_orcid(match[2]) if match[2] is not None else None,
        parse_organisation(match[3]) if match[3] else None,
    )


def parse_organisation(text: str) -> Organisation:
    """Read ``Name <URL>``; the URL can be missing.

    Raises
    ------
    UsageError
        If it has another form.
    """
    match = _ORGANISATION.fullmatch(text.strip())
    if not match or not text.isprintable():
        raise UsageError(
            f"{text!r} is not of the form 'Name <URL>'",
            "Write 'Brown University <https://ror.org/05gq02987>', or the name alone.",
        )
    return Organisation(match[1].strip(), match[2])


def parse_orcid(text: str) -> str:
    """Return an ORCID as its four groups of digits.

    Raises
    ------
    UsageError
        If it has another form, or its check digit is wrong.
    """
    match = _ORCID.fullmatch(text.strip())
    if not match or _check_digit(match[1]) != match[1][-1]:
        raise UsageError(f"{text!r} is not an ORCID", "Check its digits at orcid.org.")
    return match[1]


def _check_digit(orcid: str) -> str:
    """Return the last digit by ISO 7064 11,2."""
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    return _CHECK[(12 - total % 11) % 11]


def check_license(text: str) -> str:
    """Return a licence that is named by an SPDX identifier or a URL.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if _SPDX.fullmatch(text) or (re.match(r"https?://\S+$", text) and text.isprintable()):
        return text
    raise UsageError(
        f"{text!r} does not name a licence",
        "Give its SPDX identifier, such as CC-BY-4.0, or a URL.",
    )


def license_url(text: str) -> str:
    """Return where a licence is described."""
    return text if "://" in text else f"https://spdx.org/licenses/{text}"


def read_citation(path: Path) -> Description:
    """Read a ``CITATION.cff``.

    Raises
    ------
    UsageError
        If it cannot be read, is not YAML, or lacks title or authors.
    """
    import yaml

    try:
        text = path.read_bytes()
        data = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML", "See citation-file-format.github.io.") from error
    if not isinstance(data, dict) or not data.get("title") or not _people(data):
        raise UsageError(
            f"{path} is not a CITATION.cff: it has no title, or no authors",
            "See citation-file-format.github.io.",
        )
    license_ = data.get("license") or data.get("license-url")
    doi = data.get("doi")
    return Description(
        title=str(data["title"]),
        authors=tuple(_author(one) for one in _people(data)),
        license=check_license(license_) if isinstance(license_, str) else None,
        doi=str(doi) if doi else None,
        citation=text,
    )


def _people(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    authors = data.get("authors")
    return [one for one in authors if isinstance(one, dict)] if isinstance(authors, list) else []


def _author(data: Mapping[str, Any]) -> Author:
    parts = [data.get(key) for key in ("given-names", "name-particle", "family-names")]
    name = " ".join(str(part) for part in parts if part) or str(data.get("name") or "")
    if not name.strip():
        raise UsageError("an author in CITATION.cff has no name", "Give family-names, or name.")
    orcid, affiliation = data.get("orcid"), data.get("affiliation")
    return Author(
        name,
        parse_orcid(str(orcid)) if orcid else None,
        Organisation(str(affiliation)) if affiliation else None,
    )


def citation_text(description: Description, created_utc: str, tool: str) -> bytes:
    """Return a ``CITATION.cff`` (1.2.0) of an archive.

    Parameters
    ----------
    description
        Its title, authors and licence.
    created_utc
        When the run was made.
    tool
        What ran.
    """
    import yaml

    data: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use these data, please cite them as below.",
        "type": "dataset",
        "title": description.title,
        "authors": [_cff_author(author) for author in description.authors],
        "date-released": created_utc[:10],
        "keywords": [tool],
    }
    if description.license:
        key = "license-url" if "://" in description.license else "license"
        data[key] = description.license
    if description.doi:
        data["doi"] = description.doi
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return text.encode()


def _cff_author(author: Author) -> dict[str, str]:
    given, _, family = author.name.rpartition(" ")
    found = {"given-names": given, "family-names": family} if given else {"name": family}
    if author.affiliation:
        found["affiliation"] = author.affiliation.name
    return {**found, "orcid": f"{ORCID}{author.orcid}"} if author.orcid else found


def merged(given: Description, asked: Description) -> Description:
    """Return a description from a ``CITATION.cff`` with what was asked for besides.

    Raises
    ------
    UsageError
        If the file, which is packed as it is, says something else than what was asked for.
    """
    pairs = {
        "--title": (asked.title, given.title),
        "--author": (asked.authors, given.authors),
        "--license": (asked.license, given.license),
    }
    other = [name for name, (wanted, said) in pairs.items() if wanted and said and wanted != said]
    if other:
        raise UsageError(
            f"the CITATION.cff says something else than {', '.join(other)}",
            "It is packed as it is: leave the option out, or change the file.",
        )
    return Description(
        given.title,
        given.authors,
        given.license or asked.license,
        asked.publisher,
        given.doi,
        given.citation,
    )


def named(authors: Iterable[Author]) -> str:
    """Return the names of authors in one line."""
    return "; ".join(author.name for author in authors)

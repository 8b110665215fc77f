"""The description of an archive for machines: an RO-Crate 1.1 after Process Run Crate 0.5."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.contents import Contents
from valska.external_tools.core.archive.document import ArchiveDocument, ArchiveKind
from valska.external_tools.core.archive.people import (
    ORCID,
    Author,
    Description,
    Organisation,
    license_url,
)
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import Manifest

CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    "https://w3id.org/ro/terms/workflow-run/context",
]
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"

MOST_OUTPUTS = 500
"""Of more files in the outputs of a run the directory alone is described."""

_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_NO_LICENCE = "#no-licence"
_UNKNOWN = "#who-ran-it"
_NOT_STATED = "not stated"
_FORMATS = {
    "json": "application/json",
    "md": "text/markdown",
    "txt": "text/plain",
    "log": "text/plain",
    "csv": "text/csv",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "cff": "application/yaml",
    "sh": "application/x-sh",
    "h5": "application/x-hdf5",
    "hdf5": "application/x-hdf5",
    "uvh5": "application/x-hdf5",
    "fits": "application/fits",
    "uvfits": "application/fits",
    "png": "image/png",
    "sif": "application/vnd.sylabs.sif",
}
_STATUS = {"completed": "CompletedActionStatus"}
_ENDS = {"running": "The job left no record of its end."}
_LOOK = "https://github.com/search?type=repositories&q="
"""Where to look for a tool that does not say where it is from."""
_LOOK_ORGANISATION = "https://ror.org/search?query="

Entity = dict[str, Any]


def crate_text(
    contents: Contents, document: ArchiveDocument, manifest: Manifest, description: Description
) -> bytes:
    """Return ``ro-crate-metadata.json``.

    Parameters
    ----------
    contents
        The payload.
    document
        What the archive says of itself.
    manifest
        The bundle's; of a sweep what all points share.
    description
        Title, authors and licence.
    """
    graph = _Graph(contents, document, manifest, description)
    encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
    lines = ",\n".join(map(encode, graph.entities()))
    text = f'{{"@context": {encode(CONTEXT)},\n"@graph": [\n{lines}\n]}}\n'
    return text.encode(errors="backslashreplace")


class _Graph:
    """Collects the entities of one crate, each once."""

    def __init__(
        self,
        contents: Contents,
        document: ArchiveDocument,
        manifest: Manifest,
        description: Description,
    ) -> None:
        self._contents, self._document = contents, document
        self._manifest, self._description = manifest, description
        self._records = contents.by_folder("records")
        self._configurations = contents.by_folder("config")
        self._found: dict[str, Entity] = {}
        self._parts: list[str] = []
        self._actions: list[str] = []
        self._author = ""

    def entities(self) -> list[Entity]:
        """Return all entities: the root, what it consists of, who, and what happened."""
        people = self._people()
        self._author = people[0] if people else self._nobody()
        self._instrument()
        self._described_files()
        if self._document.kind is ArchiveKind.BUNDLE:
            self._run(places.BUNDLE, self._parameters("", _values(self._manifest)))
        else:
            self._sweep()
        root = self._root(people)
        return [_descriptor(), root, *self._found.values()]

    def _root(self, people: list[str]) -> Entity:
        document, about = self._document, self._description
        root: Entity = {
            "@id": "./",
            "@type": "Dataset",
            "name": about.title,
            "description": f"A {document.kind} of {document.tool}, {document.run_id}: "
            "configuration, inputs, scripts, software, the jobs' own records and what they wrote. "
            "README.md beside this crate says how to check it and run it again.",
            "datePublished": _time(document.created_utc),
            "conformsTo": _ref(PROFILE),
            "license": _ref(self._licence()),
            "publisher": _ref(self._publisher()),
            "author": _refs(people or [self._author]),
            **_some("hasPart", self._parts),
            **_some("mentions", self._actions),
        }
        identifiers = [f"urn:sha256:{document.bundle_id}"] if document.bundle_id else []
        if about.doi:
            identifiers.insert(0, f"https://doi.org/{about.doi.removeprefix('https://doi.org/')}")
        if identifiers:
            root["identifier"] = identifiers[0] if len(identifiers) == 1 else identifiers
        return root

    def _add(self, entity: Entity) -> str:
        return str(self._found.setdefault(entity["@id"], entity)["@id"])

    def _people(self) -> list[str]:
        return [self._person(author) for author in self._description.authors]

    def _person(self, author: Author) -> str:
        where = f"{ORCID}{author.orcid}" if author.orcid else f"#{quote(author.name)}"
        entity: Entity = {"@id": where, "@type": "Person", "name": author.name}
        affiliation = author.affiliation or Organisation(_NOT_STATED)
        entity["affiliation"] = _ref(self._organisation(affiliation))
        return self._add(entity)

    def _organisation(self, organisation: Organisation) -> str:
        name, url = organisation.name, organisation.url
        where = url or f"#{quote(name)}"
        entity = {"@id": where, "@type": "Organization", "name": name}
        return self._add({**entity, "url": url or f"{_LOOK_ORGANISATION}{quote(name)}"})

    def _nobody(self) -> str:
        return self._named(_UNKNOWN, _NOT_STATED)

    def _user(self, name: str | None) -> str:
        """Return who ran a stage; records of earlier versions do not say it."""
        if not name:
            return self._author
        return self._named(f"#user/{quote(name, errors='backslashreplace')}", name)

    def _named(self, where: str, name: str) -> str:
        """Return a person of whom no more than a name is known."""
        affiliation = _ref(self._organisation(Organisation(_NOT_STATED)))
        entity = {"@id": where, "@type": "Person", "name": name, "affiliation": affiliation}
        return self._add(entity)

    def _publisher(self) -> str:
        return self._organisation(self._description.publisher or Organisation(_NOT_STATED))

    def _licence(self) -> str:
        licence = self._description.license
        if licence is None:
            text = "No licence is stated; ask the authors before using these data."
            entity = {"@id": _NO_LICENCE, "name": "No licence stated", "description": text}
        else:
            url = license_url(licence)
            entity = {"@id": url, "name": licence, "description": f"The licence {licence}."}
        return self._add({**entity, "@type": "CreativeWork"})

    def _instrument(self) -> None:
        self._add(
            {
                "@id": PROFILE,
                "@type": "CreativeWork",
                "name": "Process Run Crate",
                "version": "0.5",
            }
        )
        record = _image_record(self._contents)
        python = record.get("packages", {}).get("python", {})
        labels = record.get("labels", {})
        tool = self._document.tool
        software = self._manifest.image or self._manifest.environment or {}
        digest = software.get("sha256") or software.get("explicit_sha256")
        version = python.get(tool) if isinstance(python, dict) else None
        source = labels.get("org.opencontainers.image.source") if isinstance(labels, dict) else None
        where = str(source or f"{_LOOK}{quote(tool)}")
        self._tool = self._add(
            {
                "@id": where,
                "@type": "SoftwareApplication",
                "name": tool,
                "version": str(version or (f"sha256:{digest}" if digest else _NOT_STATED)),
                "url": where,
            }
        )
        self._image()

    def _image(self) -> None:
        image = self._document.image
        if image is None:
            return
        entity: Entity = {
            "@id": "#image",
            "@type": "ContainerImage",
            "additionalType": _ref(f"{_TERMS}SIFImage"),
            "name": f"{self._document.tool}.sif",
            "sha256": image.sha256,
            "contentSize": str(image.size),
            "registry": "none",
        }
        if image.published:
            registry, _, rest = image.published[0].partition("://")[2].partition("/")
            name, _, tag = rest.partition("@")
            entity |= {"registry": registry, "name": name, "tag": tag}
        if image.path is not None:
            entity["@id"] = self._id(image.path)
            entity["@type"] = ["File", "ContainerImage"]
            entity["encodingFormat"] = _FORMATS["sif"]
            self._parts.append(entity["@id"])
        self._add(entity)
        self._image_id = entity["@id"]

    _image_id = ""
    _tool = ""

    def _described_files(self) -> None:
        """Describe what is sealed, what is packed besides, and the citation."""
        prefix = f"{places.BUNDLE}/"
        for name, entry in self._contents.entries.items():
            top = name.removeprefix(prefix).partition("/")[0]
            sealed = name.startswith(prefix) and top not in _FOLDERS
            if entry.kind is Kind.FILE and (sealed or name == places.CITATION):
                self._file(name)
        for name in (f"{places.BUNDLE}/{folder}" for folder in ("logs", "records")):
            if name in self._contents.entries and self._document.kind is ArchiveKind.BUNDLE:
                self._folder(name)

    def _file(self, name: str) -> str:
        where = self._id(name)
        if where not in self._found:
            entry = self._contents.file(name)
            suffix = name.rpartition(".")[2].lower()
            self._parts.append(where)
            self._add(
                {
                    "@id": where,
                    "@type": "File",
                    "name": name.rpartition("/")[2],
                    "contentSize": str(entry.size if entry else 0),
                    "encodingFormat": _FORMATS.get(suffix, "application/octet-stream"),
                    "sha256": entry.sha256 if entry else None,
                }
            )
        return where

    def _folder(self, name: str, **more: Any) -> str:
        where = f"{self._id(name)}/"
        if where not in self._found:
            self._parts.append(where)
            path = name.removeprefix(f"{places.DATA}/")
            about = {"name": path, "description": f"The directory {path}."}
            self._add({"@id": where, "@type": "Dataset", **about, **more})
        return where

    def _id(self, name: str) -> str:
        return quote(name.removeprefix(f"{places.DATA}/"))

    def _absent(self, name: str, sha256: str | None, size: int) -> str:
        """Describe a file that is not packed."""
        entity: Entity = {
            "@id": f"#left-out/{quote(name)}",
            "@type": "CreativeWork",
            "name": name,
            "description": "Not in this archive.",
            "size": str(size),
        }
        return self._add({**entity, "sha256": sha256} if sha256 else entity)

    def _parameters(self, prefix: str, values: Mapping[str, Any]) -> list[str]:
        return [
            self._add(
                {
                    "@id": f"#parameter/{quote(prefix + name)}",
                    "@type": "PropertyValue",
                    "name": name,
                    "value": _plain(value),
                }
            )
            for name, value in sorted(values.items())
        ]

    def _inputs(self) -> Iterator[str]:
        references = self._document.references
        for entry in self._manifest.inputs:
            place = references.get(entry.path) or f"{places.BUNDLE}/{entry.path}"
            packed = entry.mode != "reference" or references.get(entry.path)
            if packed and self._contents.file(place):
                yield self._file(place)
            else:
                yield self._absent(entry.path, entry.sha256, entry.size)
        for borrowed in self._manifest.borrowed:
            place = references.get(borrowed.path) or ""
            if place:
                yield self._folder(place)
            else:
                yield self._absent(borrowed.path, borrowed.sha256, borrowed.size)

    def _run(self, unit: str, parameters: Iterable[str]) -> None:
        """Describe what happened in a bundle, or in a unit of a sweep."""
        objects = [*dict.fromkeys([*self._inputs(), *self._configs(unit), *parameters])]
        for name in self._records.get(unit, ()):
            if name not in self._contents.documents:
                continue
            try:
                record = self._contents.json(name, "stage-record-1")
            except VerificationError:
                continue
            self._action(unit, name, record, objects)

    def _configs(self, unit: str) -> Iterator[str]:
        for name in self._configurations.get(unit, ()):
            yield self._file(name)

    def _action(self, unit: str, name: str, record: Mapping[str, Any], objects: list[str]) -> None:
        stage, job, state = record["stage"], record["job"], str(record["state"])
        command = record["runner"]["command"]
        action: Entity = {
            "@id": f"#{quote(name.removeprefix(f'{places.BUNDLE}/'))}",
            "@type": "CreateAction",
            "name": f"{stage} of {self._document.run_id}, job {job['id']}",
            "description": shlex.join(map(str, command)) or f"Stage {stage}.",
            "instrument": _ref(self._tool),
            "agent": _ref(self._user(record.get("user"))),
            "startTime": _time(record["started_utc"]),
            "endTime": _time(record["ended_utc"] or record["started_utc"]),
            "actionStatus": f"http://schema.org/{_STATUS.get(state, 'FailedActionStatus')}",
            **_some("object", objects),
            "result": _refs([*self._results(unit, record)] or [self._file(name)]),
        }
        if state != "completed":
            action["error"] = record["reason"] or _ENDS.get(state, state)
        if record["image"] and self._image_id:
            action["containerImage"] = _ref(self._image_id)
        self._actions.append(self._add(action))

    def _results(self, unit: str, record: Mapping[str, Any]) -> Iterator[str]:
        outputs = record["outputs"]
        folder = f"{unit}/outputs"
        if len(outputs) > MOST_OUTPUTS and folder in self._contents.entries:
            yield self._folder(folder)
            return
        for output in outputs[:MOST_OUTPUTS]:
            name = f"{unit}/{output['path']}"
            entry = self._contents.file(name)
            if entry is not None and entry.sha256 == output["sha256"]:
                yield self._file(name)
            else:
                yield self._absent(
                    name.removeprefix(f"{places.BUNDLE}/"), output["sha256"], output["size"]
                )

    def _sweep(self) -> None:
        data = self._contents.json(f"{places.BUNDLE}/sweep_manifest.json")
        shared = _values(self._manifest)
        for kind in ("points", "shared"):
            for entry in data[kind]:
                unit = f"{places.BUNDLE}/{kind}/{entry['label']}"
                if unit not in self._contents.entries:
                    continue
                self._folder(unit, identifier=f"urn:sha256:{entry['bundle_id']}")
                values = {**shared, **entry.get("values", {}), **entry.get("perturbations", {})}
                self._run(unit, self._parameters(f"{entry['label']}/", values))


_FOLDERS = {"outputs", "records", "logs", "points", "shared", "arrays"}


def _descriptor() -> Entity:
    return {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": _ref("./"),
        "conformsTo": _ref(SPECIFICATION),
    }


def _ref(where: str) -> dict[str, str]:
    return {"@id": where}


def _refs(places: Iterable[str]) -> Any:
    found = [_ref(place) for place in places]
    return found[0] if len(found) == 1 else found


def _some(key: str, places: Iterable[str]) -> dict[str, Any]:
    """Return a property, unless it has no values."""
    found = _refs(places)
    return {key: found} if found else {}


def _time(utc: str) -> str:
    return utc.replace("Z", "+00:00")


def _plain(value: Any) -> Any:
    is_plain = isinstance(value, str | int | float | bool)
    return value if is_plain else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _values(manifest: Manifest) -> dict[str, Any]:
    spec = manifest.spec
    found = {**spec.get("options", {}), **spec.get("overrides", {})}
    return {**found, **{f"{key} (change)": f for key, f in spec.get("perturbations", {}).items()}}


def _image_record(contents: Contents) -> Mapping[str, Any]:
    for name in contents.documents:
        if name.endswith(".image.json"):
            try:
                return contents.json(name)
            except VerificationError:
                return {}
    return {}

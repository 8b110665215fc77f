"""Packages of the distribution: dpkg, apk and rpm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from valska.external_tools.core.images.packages.model import APK, DEB, RPM, Package
from valska.external_tools.core.images.tree import FILE, Node, Tree

DPKG_STATUS = b"var/lib/dpkg/status"
DPKG_STATUS_DIRECTORY = b"var/lib/dpkg/status.d/"
APK_INSTALLED = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")

_OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")
_RPM_PLACES = (b"var/lib/rpm/", b"usr/lib/sysimage/rpm/")
_RPM_FORMAT = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{LICENSE}\\n"
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")
_DEP5 = re.compile(rb"\AFormat(?:-Specification)?:.*(?:copyright-format|dep5|DEP5|DEP-5)", re.I)
_LICENCE = re.compile(rb"^License:[ \t]*(\S[^\n]*?)[ \t]*$", re.MULTILINE)


def read_dpkg(tree: Tree, nodes: Sequence[Node]) -> list[Package]:
    """Return the packages that dpkg has installed; images without dpkg have a ``status.d``."""
    files = {node.path for node in nodes if node.kind == FILE}
    places = sorted(
        path
        for path in files
        if path == DPKG_STATUS
        or (path.startswith(DPKG_STATUS_DIRECTORY) and not path.endswith(b".md5sums"))
    )
    found = []
    for place in places:
        for fields in _stanzas(tree.read(place).decode(errors="replace")):
            if _is_installed(fields):
                found.append(_deb(fields, place, _copyright(tree, files, fields["Package"])))
    return found


def read_apk(tree: Tree, nodes: Sequence[Node]) -> list[Package]:
    """Return the packages that apk has installed."""
    files = {node.path for node in nodes if node.kind == FILE}
    place = next((path for path in APK_INSTALLED if path in files), None)
    if place is None:
        return []
    found = []
    for stanza in tree.read(place).decode(errors="replace").split("\n\n"):
        fields = dict(_fields(stanza))
        if "P" in fields and "V" in fields:
            found.append(_apk(fields, place))
    return found


def has_rpm(nodes: Sequence[Node]) -> bool:
    """Return whether a tree has a database of rpm."""
    return any(node.kind == FILE and node.path.startswith(_RPM_PLACES) for node in nodes)


def read_rpm(ask: Callable[[Sequence[str]], str | None]) -> list[Package]:
    """Return the packages that rpm itself tells of."""
    answer = ask(("rpm", "-qa", "--queryformat", _RPM_FORMAT)) or ""
    found = []
    for line in answer.splitlines():
        name, epoch, version, architecture, licence = (*line.split("\t"), *[""] * 5)[:5]
        if name and version and name != "gpg-pubkey":
            full = f"{epoch}:{version}" if epoch not in ("", "0") else version
            found.append(Package(RPM, name, full, "", architecture or None, _one(licence)))
    return found


def read_distribution(tree: Tree, nodes: Sequence[Node]) -> str | None:
    """Return ``ID-VERSION_ID`` of a tree's ``os-release``, such as ``debian-12``."""
    files = {node.path for node in nodes if node.kind == FILE}
    place = next((path for path in _OS_RELEASE if path in files), None)
    if place is None:
        return None
    lines = tree.read(place).decode(errors="replace").splitlines()
    fields = {key: value.strip("\"' ") for key, _, value in (line.partition("=") for line in lines)}
    words = [fields.get("ID"), fields.get("VERSION_ID")]
    return "-".join(word for word in words if word) or None


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph of a Debian control file; of long ones the first line."""
    for stanza in re.split(r"\n\n+", text):
        fields = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields[name] = value.strip()
        if "Package" in fields and "Version" in fields:
            yield fields


def _is_installed(fields: dict[str, str]) -> bool:
    return fields.get("Status", "install ok installed").endswith(" installed")


def _deb(fields: dict[str, str], place: bytes, licences: tuple[str, ...]) -> Package:
    name, version = fields["Package"], fields["Version"]
    match = _SOURCE.match(fields.get("Source", name))
    source = "@".join(word for word in match.groups() if word) if match else name
    return Package(
        DEB,
        name,
        version,
        architecture=fields.get("Architecture"),
        licences=licences,
        source=source if source != name else None,
        metadata=place,
    )


def _copyright(tree: Tree, files: set[bytes], name: str) -> tuple[str, ...]:
    """Return the short names of the licences that a package's copyright file has, if it has any."""
    path = b"usr/share/doc/" + name.encode() + b"/copyright"
    text = tree.read(path) if path in files else b""
    if not _DEP5.match(text):
        return ()
    return tuple(sorted({match.decode(errors="replace") for match in _LICENCE.findall(text)}))


def _apk(fields: dict[str, str], place: bytes) -> Package:
    source = fields.get("o")
    return Package(
        APK,
        fields["P"],
        fields["V"],
        architecture=fields.get("A"),
        licences=_one(fields.get("L")),
        source=source if source != fields["P"] else None,
        metadata=place,
    )


def _fields(stanza: str) -> Iterator[tuple[str, str]]:
    for line in stanza.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name, value


def _one(licence: str | None) -> tuple[str, ...]:
    return (licence,) if licence else ()

"""Archives that an adversary made with care: every manifest agrees, and one entry does harm.

What is refused of them is refused for that entry alone.
"""

import hashlib
import zlib

import zstandard
from archives import entries

from valska.external_tools.core.archive.bag import manifest_text, payload_oxum, said_oxum
from valska.external_tools.core.archive.container import trailer

TOP = "r1"
PLACE = "data/bundle/logs"
LAST = ("bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt")
OF_TAGS = ("bagit.txt", "README.md", "archive.json", "bag-info.txt", "manifest-sha256.txt")


def block(name, content=b"", *, kind=b"0", link=b"", mode=b"0000644\0", size=None, prefix=b"",
          magic=b"ustar\x0000"):  # fmt: skip
    """Return an entry, byte by byte: its header and its content."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    head = bytearray(512)
    fields = (
        (0, raw[:100]), (100, mode), (108, b"0000000\0"), (116, b"0000000\0"),
        (124, size or b"%011o\0" % len(content)), (136, b"00000000000\0"), (148, b" " * 8),
        (156, kind), (157, link), (257, magic), (345, prefix),
    )  # fmt: skip
    for place, value in fields:
        head[place : place + len(value)] = value
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


def pax(**records):
    """Return a header that says something else of the entry after it."""
    body = b""
    for key, value in records.items():
        raw = value if isinstance(value, bytes) else value.encode()
        rest = b" %b=%b\n" % (key.replace("_", ".").encode(), raw)
        length = len(rest) + 1
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        body += b"%d" % length + rest
    return block("pax", body, kind=b"x")


def gnu(flag, text):
    """Return GNU tar's header with a long name, or the long target of a link."""
    return block("././@LongLink", text, kind=flag)


def closed(data):
    """Return compressed bytes with what ends an archive."""
    return data + trailer(len(data), zlib.crc32(data))


def forged_tar(archive, raw=b"", files=(), *, instead=None, after=None):
    """Return the tar file of an archive that was changed, with manifests that know of it.

    Parameters
    ----------
    archive
        What it is made of.
    raw
        Further entries, each whole with its header.
    files
        Name to content: what these entries are to be in the bag's manifest.
    instead
        Name to another content; the manifests have its digest.
    after
        Name to another content, of which no manifest knows.
    """
    held = {name.partition("/")[2]: content for name, (_, content) in entries(archive).items()}
    top = next(iter(entries(archive)))
    new = {name: content for name, content in held.items() if content is not None}
    new |= instead or {}
    payload = {name: content for name, content in new.items() if name.startswith("data/")}
    payload |= dict(files)
    info = new["bag-info.txt"].decode()
    oxum = payload_oxum([len(content) for content in payload.values()])
    new["bag-info.txt"] = info.replace(said_oxum(info.encode()), oxum).encode()
    new["manifest-sha256.txt"] = manifest_text({k: sha256(v) for k, v in payload.items()})
    new["tagmanifest-sha256.txt"] = manifest_text({k: sha256(new[k]) for k in OF_TAGS})
    new |= after or {}
    order = [name for name in held if name not in LAST]
    parts = [_whole(f"{top}/{name}".removesuffix("/"), new.get(name)) for name in order]
    return b"".join([*parts, raw, *(_whole(f"{top}/{k}", new[k]) for k in LAST), bytes(1024)])


def _whole(name, content):
    """Return an entry; a directory if it has no content."""
    name = name if content is not None else f"{name}/"
    long = b""
    if len(name.encode()) > 100:
        long = gnu(b"L", name.encode() + b"\0")
    if content is None:
        return long + block(name, kind=b"5", mode=b"0000755\0")
    return long + block(name, content)


def forged(archive, path, raw=b"", files=(), **changes):
    """Write an archive that was changed; see `forged_tar`."""
    tar = forged_tar(archive, raw, files, **changes)
    path.write_bytes(closed(zstandard.ZstdCompressor(write_checksum=True).compress(tar)))
    return path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def _at(name, content=b"x", **more):
    """Return an entry beside the logs, and the manifest's line of it."""
    return block(f"{TOP}/{PLACE}/{name}", content, **more), {f"{PLACE}/{name}": content}


def _link(target, **more):
    return block(f"{TOP}/{PLACE}/l", kind=b"2", link=target, **more), {f"{PLACE}/l": b""}


def _named(first, *names):
    """Return a plain entry after headers that name it otherwise, and the lines of those names."""
    raw = first + block(f"{TOP}/{PLACE}/plain", b"x")
    return raw, dict.fromkeys(names, b"x")


def _two(one, other):
    return one[0] + other[0], {**one[1], **other[1]}


OUT = "leads out of the archive"
ODD = "control characters"
ALIKE = "are one name on some file systems"
KINDS = {
    "an absolute name": ((block("/tmp/valska-was-here", b"x"), {}), "is an absolute path"),
    "a name that leads out": ((block(f"{TOP}/../../outside", b"x"), {}), OUT),
    "a name that leads out at once": ((block("../outside", b"x"), {}), OUT),
    "a prefix that leads out": ((block("outside", b"x", prefix=b"../.."), {}), OUT),
    "a long name that leads out": (_named(gnu(b"L", b"r1/data/../../../outside\0")), OUT),
    "a path of pax that leads out": (_named(pax(path="../../outside")), OUT),
    "an absolute path of pax": (_named(pax(path="/tmp/valska-was-here")), "an absolute path"),
    "a path of pax with a NUL": (_named(pax(path=b"r1/data/a\0b")), ODD),
    "a second path of pax": (
        _named(pax(path=f"{TOP}/{PLACE}/good") + pax(path="../outside"), f"{PLACE}/good"),
        OUT,
    ),
    "a second directory": ((block("r2/", kind=b"5") + block("r2/x", b"x"), {}), "lies beside"),
    "a file beside the directory": ((block("file", b"x"), {}), "lies beside"),
    "the directory as a link": ((block(TOP, kind=b"2", link=b"/tmp"), {}), "lies beside"),
    "a dot": ((block("./", kind=b"5"), {}), "not a plain path"),
    "a dot within": ((block(f"{TOP}/{PLACE}/./x", b"x"), {}), "not a plain path"),
    "no name": ((block(b"", b"x"), {}), "not a plain path"),
    "a link out": (_link(b"../../../../outside"), OUT),
    "an absolute link": (_link(b"/etc/passwd"), OUT),
    "a link to a tag file": (_link(b"../../../README.md"), OUT),
    "a link to the payload itself": (_link(b"../.."), OUT),
    "a link with a line break": (_link(b"a\nb"), "whose target has"),
    "a long link out": (
        (gnu(b"K", b"/etc/passwd\0") + _link(b"x")[0], {f"{PLACE}/l": b""}),
        OUT,
    ),
    "a link of pax out": ((pax(linkpath="/etc/passwd") + _link(b"x")[0], {}), OUT),
    "a link that leads nowhere": (_link(b"nothing"), "which is no file"),
    "a link to itself": (_link(b"l"), "which is no file"),
    "a file below a link": (
        _two(_link(b"../config"), _at("l/x")),
        "is both a symbolic link and a directory",
    ),
    "a file below a file": (_two(_at("f"), _at("f/g")), "is both a file and a directory"),
    "a file where a directory is": (_two(_at("d/f"), _at("d")), "both a directory and a file"),
    "a directory where a file is": (
        _two(_at("f"), (block(f"{TOP}/{PLACE}/f/", kind=b"5"), {})),
        "is in it twice",
    ),
    "a hard link": (
        (block(f"{TOP}/{PLACE}/h", kind=b"1", link=b"r1/README.md"), {f"{PLACE}/h": b""}),
        "is a hard link",
    ),
    "a character device": (_at("d", b"", kind=b"3"), "is a device"),
    "a block device": (_at("d", b"", kind=b"4"), "is a device"),
    "a pipe": (_at("d", b"", kind=b"6"), "is a device"),
    "a sparse file": (_at("s", kind=b"S"), "is a special file"),
    "a file of several volumes": (_at("s", kind=b"M"), "is a special file"),
    "a set-user-id file": (_at("s", mode=b"0004755\0"), "set-id or sticky bits"),
    "a set-group-id file": (_at("s", mode=b"0002755\0"), "set-id or sticky bits"),
    "set-id bits in another form": (
        _at("s", mode=b"\x80\0\0\0\0\0\x09\xed"),
        "set-id or sticky bits",
    ),
    "a sticky directory": (
        (block(f"{TOP}/{PLACE}/s/", kind=b"5", mode=b"0001755\0"), {}),
        "set-id or sticky bits",
    ),
    "a control character": (_at("a\x1b[2Jb"), ODD),
    "a control character beyond ASCII": (_at("a\x9b2Jb"), ODD),
    "a line break": ((_at("a\nb")[0], {}), ODD),
    "a name that is not UTF-8": ((block(b"r1/data/bundle/logs/\xff", b"x"), {}), ODD),
    "a line separator": (_at("a\u2028b"), ODD),
    "names in two cases": (_two(_at("a"), _at("A")), ALIKE),
    "directories in two cases": (_two(_at("d/a"), _at("D/b")), ALIKE),
    "names in two cases beyond ASCII": (_two(_at("stra\xdfe"), _at("STRASSE")), ALIKE),
    "two forms of one letter": (_two(_at("\xe9"), _at("e\u0301")), ALIKE),
    "a name twice": (_two(_at("a"), _at("a")), "is in it twice"),
    "a directory twice": (
        (block(f"{TOP}/{PLACE}/d/", kind=b"5") * 2, {}),
        "is in it twice",
    ),
    "a part of 256 bytes": (
        _named(gnu(b"L", f"{TOP}/{PLACE}/{'x' * 256}\0".encode()), f"{PLACE}/{'x' * 256}"),
        "is too long",
    ),
    "a name of many parts": (
        _named(gnu(b"L", f"{TOP}/{PLACE}/{'a/' * 100}f\0".encode()), f"{PLACE}/{'a/' * 100}f"),
        "directories deep",
    ),
}
"""Kind to ((entries, lines of the manifest), why it is refused)."""

DAMAGED = {
    "a negative size": (block("r1/data/n", size=b"\xff" * 12), "a number in a header"),
    "a size with a sign": (block("r1/data/n", size=b"-0000000001\0"), "a number in a header"),
    "an endless size": (block("r1/data/n", size=b"\x80\x7f" + b"\xff" * 10), "it ends too early"),
    "a size of pax that is more": (
        pax(size="99999999") + block("r1/data/n", b"x"),
        "it ends too early",
    ),
    "a sparse file of pax": (
        pax(GNU_sparse_major="1") + block("r1/data/n", b"x"),
        "an extended header is not usable",
    ),
    "a header of pax for nothing": (pax(path="r1/x") + bytes(1024), "an entry is missing"),
    "an end within": (bytes(1024), "there is something after its end"),
    "something between two entries": (
        block("r1/data/bundle/logs/n", b"x")[:-1] + b"x",
        "something between two entries",
    ),
    "a directory with content": (block("r1/data/q/", b"x"), "a directory with content"),
    "content hidden by a size of pax": (
        pax(size="0") + block("r1/data/bundle/logs/n", block("../outside", b"x")),
        OUT,
    ),
}
"""Kind to (entries, what is found)."""

"""Images out of a registry: bases as OCI archives, SIFs, and images that other tools built."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import (
    PrerequisiteError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.registry import archive
from valska.external_tools.core.images.registry.client import (
    Manifest,
    choose,
    connect,
    fetch_blob,
    fetch_manifest,
    this_platform,
)
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.images.registry.progress import Progress, part_of
from valska.external_tools.core.images.registry.reference import Reference, parse
from valska.external_tools.core.images.registry.referrers import Attached, fetch_attached
from valska.external_tools.core.images.registry.sifs import sif_layer
from valska.external_tools.core.images.scratch import claim_directory
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.holding import hold
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import fsync_directory, write_atomic

if TYPE_CHECKING:
    from valska.external_tools.core.images.registry.transport import Connection

_LOCKS = ".locks"
_NAME = re.compile(r"[^A-Za-z0-9._+=-]")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PulledSif:
    """A SIF that has been pulled.

    Parameters
    ----------
    path, sha256
        The file, and the digest that it has.
    manifest
        What names it in the registry.
    """

    path: Path
    sha256: str
    manifest: Manifest


def base_name(digest: str) -> str:
    """Return the file name of a base in a store or a kit: ``<64 digits>.oci.tar``."""
    return f"{digest.removeprefix('sha256:')}{archive.SUFFIX}"


def pull_base(
    reference: Reference | str,
    directory: Path,
    *,
    platform: str | None = None,
    http: Http | None = None,
    progress: Progress | None = None,
) -> Path:
    """Have a base as an OCI archive, which ``apptainer build`` takes as ``oci-archive``.

    Nothing is fetched where the directory has it, whole. The archive has the same bytes whenever
    and wherever it is made. Only one process fetches a base; others wait, and then have it.

    Parameters
    ----------
    reference
        The base; resolved first if it has no digest.
    directory
        Where the archive goes, as `base_name` of the digest; made if it is not there.
    platform
        Which image of an index (``linux/amd64``); this machine's if None.
    http
        How to ask; from the environment if None.
    progress
        Told how many bytes have come, and of how many; nothing where it is here already.

    Returns
    -------
    pathlib.Path
        The archive.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, does not have it, or does not give it to this user.
    VerificationError
        If what the registry serves does not have its digest.
    """
    connection = connect(reference, http)
    named, platform = connection.reference, platform or this_platform()
    found = None
    if named.digest is None:
        found = fetch_manifest(connection, named)
        named = found.reference
    digest = str(named.digest)
    target = directory / base_name(digest)
    with hold(directory.absolute() / _LOCKS, target.name, f"fetching {named}"):
        if not has_base(target, digest, platform):
            found = found or fetch_manifest(connection, named)
            with _writing(directory) as work:
                _fetch_base(connection, found, platform, work, progress)
                (work / "archive").replace(target)
                fsync_directory(directory)
    return target


def has_base(path: Path, digest: str, platform: str | None = None) -> bool:
    """Tell whether a file is the base that a digest names, whole, and for a platform."""
    try:
        archive.check_archive(path, digest, platform or this_platform())
    except FileNotFoundError:
        return False
    except (ValskaError, OSError) as error:
        log.warning("%s is not used: %s", path, error)
        return False
    return True


def pull_sif(
    reference: Reference | str,
    directory: Path,
    *,
    http: Http | None = None,
    progress: Progress | None = None,
) -> PulledSif:
    """Fetch a SIF that was pushed as ``apptainer push`` does it, into a directory that is there.

    Its name is the last part of the repository's.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, does not have it, does not give it to this user, or has
        something else than a SIF there.
    VerificationError
        If what the registry serves does not have its digest.
    """
    connection = connect(reference, http)
    found = fetch_manifest(connection, connection.reference)
    return _fetch_sif(connection, found, directory, progress)


def import_oras(
    uri: str,
    store: ImageStore,
    *,
    http: Http | None = None,
    apptainer: str = "apptainer",
    run: Run = run,
    progress: Progress | None = None,
) -> ImageRecord:
    """Take a SIF of a registry into a store.

    The record is the one that was pushed with it, or is made from what the image says of itself.
    Only one process fetches an image; others wait, and then have it.

    Parameters
    ----------
    uri
        ``oras://HOST/REPOSITORY`` with a tag or a digest.
    store
        Where it goes.
    http, progress
        See `pull_base`.
    apptainer, run
        Asked about an image without a record.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `pull_sif`.
    """
    connection = connect(uri, http)
    found = fetch_manifest(connection, connection.reference)
    sha256 = sif_layer(found)["digest"].removeprefix("sha256:")
    with store.holding(sha256, f"fetching {uri}"):
        if known := store.find(sha256):
            store.check(sha256)
            return known[0]
        with store.workspace() as work, _telling(store.root):
            pulled = _fetch_sif(connection, found, work, progress)
            attached = _attached(connection, pulled) or _adopted(pulled, store, apptainer, run)
            record = _sourced(attached.record, uri, found)
            return store.add(pulled.path, record, dict(attached.files))


def import_docker(
    uri: str,
    store: ImageStore,
    *,
    http: Http | None = None,
    apptainer: str = "apptainer",
    run: Run = run,
    progress: Any = None,
) -> ImageRecord:
    """Build a SIF of another tool's image, at the digest that the reference names now.

    Parameters
    ----------
    uri
        ``docker://`` and a reference.
    store
        Where it goes.
    http
        See `pull_base`.
    apptainer, run
        See `build`.
    progress
        Told every line that the build prints.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `pull_base`.
    ValskaError
        If it cannot be built.
    """
    from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
    from valska.external_tools.core.images.building.make import build

    http = http or http_options()
    connection = connect(uri, http)
    found = fetch_manifest(connection, connection.reference)
    if found.is_index:
        choose(found, this_platform())
    with store.workspace() as work:
        definition = work / f"{_stem(found.reference)}.def"
        definition.write_text(f"Bootstrap: docker\nFrom: {found.reference}\n")
        request = BuildRequest(
            definition=definition,
            store=store,
            apptainer=apptainer,
            ca_bundle=http.ca_bundle,
            options=("--no-https",) if connection.is_plain else (),
            environ=http.environ,
        )
        made = build(draft_build(request, run=run), run=run, progress=progress)
    if not made.built:
        return made.record
    record = _sourced(made.record, uri, found)
    write_atomic(store.record(record.sha256), record.to_bytes())
    return record


def _fetch_base(
    connection: Connection,
    found: Manifest,
    platform: str,
    work: Path,
    progress: Progress | None,
) -> None:
    """Write the archive of an image as ``archive`` in a directory."""
    index = found if found.is_index else None
    manifest = found
    if index is not None:
        chosen = choose(index, platform)["digest"]
        manifest = fetch_manifest(connection, index.reference.at(chosen))
    blobs = {}
    parts = tuple(archive.parts_of(manifest))
    done, total = 0, sum(part["size"] for part in parts)
    log.info("fetching %s: %s", found.reference, _megabytes(total))
    for part in parts:
        blobs[part["digest"]] = work / part["digest"].removeprefix("sha256:")
        fetch_blob(connection, part, blobs[part["digest"]], part_of(progress, done, total))
        done += part["size"]
    with (work / "archive").open("wb") as file:
        archive.write_archive(file, manifest, index, blobs)
        file.flush()
        os.fsync(file.fileno())


def _fetch_sif(
    connection: Connection, found: Manifest, directory: Path, progress: Progress | None
) -> PulledSif:
    layer = sif_layer(found)
    path = directory / f"{_stem(found.reference)}.sif"
    log.info("fetching %s: %s", found.reference, _megabytes(layer["size"]))
    fetch_blob(connection, layer, path, progress)
    return PulledSif(path, layer["digest"].removeprefix("sha256:"), found)


def _attached(connection: Connection, pulled: PulledSif) -> Attached | None:
    """Return the record that was pushed with an image; without one, or a usable one, None."""
    try:
        attached = fetch_attached(connection, pulled.manifest)
    except VerificationError:
        raise
    except ValskaError as error:
        log.warning("the record of %s is left out: %s", pulled.manifest.reference, error.message)
        return None
    if attached is not None and attached.record.sha256 != pulled.sha256:
        log.warning("the record with %s is of another image", pulled.manifest.reference)
        return None
    return attached


def _adopted(pulled: PulledSif, store: ImageStore, apptainer: str, run: Run) -> Attached:
    """Return the record that an image without one gets."""
    from valska.external_tools.core.images import adopt

    image = adopt(pulled.path, store, apptainer=apptainer, run=run)
    place = pulled.path.with_suffix(".record")
    files = {}
    for name, (role, data) in image.files.items():
        if role == "image-record":
            place.write_bytes(data)
        else:
            files[name] = data
    return Attached(read_record(place), files)


def _sourced(record: ImageRecord, uri: str, found: Manifest) -> ImageRecord:
    """Return a record that says where its image came from."""
    named = parse(uri)
    source = {
        "uri": f"{named.scheme}://{found.reference}",
        "tag": named.tag or (None if named.digest else named.identifier),
        "digest": found.digest,
    }
    return replace(record, source=source)


def _stem(reference: Reference) -> str:
    return _NAME.sub("_", reference.repository.rpartition("/")[2]) or "image"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


@contextmanager
def _writing(directory: Path) -> Iterator[Path]:
    """Make a private directory in another for a block; what killed processes left there goes."""
    with _telling(directory):
        directory.mkdir(parents=True, exist_ok=True)
        work = claim_directory(directory, ".pull-")
    try:
        with _telling(directory):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _telling(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PrerequisiteError(
            f"{directory} cannot be written: {(error.strerror or str(error)).lower()}",
            "Check its permissions and the free space of its disk.",
        ) from error

"""Packing: the same bytes always, everything or nothing, and what cannot be packed."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from archives import entries, finished, pack, plain_tar
from toy import bundle as make_bundle
from toy import stage

from valska.external_tools.core.archive.errors import ArchiveError, ChangedError, LeftOutError
from valska.external_tools.core.archive.members import NotPackableError, file_member, walk
from valska.external_tools.core.archive.packing import Packer
from valska.external_tools.core.archive.people import Author, Description
from valska.external_tools.core.archive.selection import Choice, select_bundle
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.run_directory import Bundle, TakenError


@pytest.fixture
def bundle(tmp_path):
    return finished(tmp_path)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_same_bundle_gives_the_same_bytes_with_any_number_of_threads(bundle, tmp_path):
    data = os.urandom(1 << 20) * 3 + b"again and again " * (1 << 20)
    (bundle.logs / "long.log").write_bytes(data)
    found = set()
    for threads in (1, 2, 3, 4):
        path = tmp_path / f"{threads}.tar.zst"
        pack(bundle, path, threads=threads)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_times_owners_and_modes_of_files_do_not_matter(bundle, tmp_path):
    pack(bundle, tmp_path / "1.tar.zst")
    copy = tmp_path / "elsewhere" / "copy"
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", bundle.path, copy], check=True)
    for path in sorted(copy.rglob("*")):
        os.utime(path, (1, 1))
        path.chmod(0o700 if os.access(path, os.X_OK) and path.is_file() else 0o777 & ~0o100)
        if path.is_dir():
            path.chmod(0o750)
    for path in copy.rglob("*"):
        if path.is_file():
            path.chmod(0o700 if path.suffix == ".sh" else 0o600)
    pack(Bundle(copy), tmp_path / "2.tar.zst")
    assert (tmp_path / "1.tar.zst").read_bytes() == (tmp_path / "2.tar.zst").read_bytes()


def test_entries_are_sorted_and_normalised(bundle, tmp_path):
    path = tmp_path / "a.tar.zst"
    pack(bundle, path)
    found = entries(path)
    names = [name.removeprefix("r1/") for name in found]
    payload = [name for name in names if name.startswith("data/bundle/")]
    parts = [tuple(part.encode() for part in name.split("/")) for name in payload]
    assert parts == sorted(parts)
    assert len({member.mtime for member, _ in found.values()}) == 1
    assert {member.uid for member, _ in found.values()} == {0}
    assert {member.mode for member, _ in found.values()} == {0o644, 0o755}
    assert names[1:3] == ["bagit.txt", "README.md"]
    assert names[-1] == "tagmanifest-sha256.txt"


def test_what_belongs_to_this_machine_alone_is_not_packed(bundle, tmp_path):
    (bundle.logs / "x.sif.receipt").write_text("0 0 0")
    (bundle.path / ".site.env.0123456789ab.tmp").write_text("")
    (bundle.path / "config/.nfs0123").write_text("")
    bundle.submit_lock.mkdir()
    pack(bundle, tmp_path / "a.tar.zst")
    names = {name.rpartition("/")[2] for name in entries(tmp_path / "a.tar.zst")}
    assert not names & {
        *("x.sif.receipt", ".site.env.0123456789ab.tmp", ".nfs0123", ".submit.lock")
    }
    site = entries(tmp_path / "a.tar.zst")["r1/data/bundle/site.env"][1].decode()
    assert str(tmp_path) not in site


def test_messages_that_are_none_do_not_matter(bundle, tmp_path):
    """What runs jobs here removes them at its end, which comes after that of the last job."""
    pack(bundle, tmp_path / "a.tar.zst")
    messages = bundle.logs / "local-0123abcd.err"
    messages.touch()
    selection = select_bundle(bundle, Choice())
    messages.unlink()
    write_archive(selection, tmp_path / "b.tar.zst", Description())
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    messages.write_text("Traceback")
    pack(bundle, tmp_path / "c.tar.zst")
    assert "r1/data/bundle/logs/local-0123abcd.err" in entries(tmp_path / "c.tar.zst")


def test_an_archive_that_is_there_is_kept(bundle, tmp_path):
    path = tmp_path / "a.tar.zst"
    path.write_text("mine")
    with pytest.raises(TakenError):
        pack(bundle, path)
    assert path.read_text() == "mine"
    with pytest.raises(TakenError, match="lies in"):
        pack(bundle, bundle.path / "a.tar.zst")


def test_of_two_archives_at_once_one_gets_the_name(bundle, tmp_path):
    (bundle.logs / "long.log").write_bytes(os.urandom(5 << 20))
    path = tmp_path / "a.tar.zst"
    selection = select_bundle(bundle, Choice())

    def other(done, total):
        if not path.exists():
            pack(bundle, path, Description(title="the first"))

    with pytest.raises(TakenError, match="exists already"):
        write_archive(selection, path, Description(title="the second"), progress=other)
    assert b"the first" in entries(path)["r1/README.md"][1]
    assert hidden(tmp_path) == []


def test_a_file_that_changes_while_it_is_packed_is_an_error(bundle, tmp_path):
    output = bundle.outputs / "growing.txt"
    output.write_text("begun")
    selection = select_bundle(bundle, Choice())
    output.write_text("begun, and goes on")
    with pytest.raises(ChangedError, match=r"growing\.txt changed while"):
        write_archive(selection, tmp_path / "a.tar.zst", Description())
    assert not hidden(tmp_path)
    assert not (tmp_path / "a.tar.zst").exists()


def test_an_empty_file_that_grows_is_found(bundle, tmp_path):
    log = bundle.logs / "empty.log"
    log.write_text("")
    selection = select_bundle(bundle, Choice())
    log.write_text("more")
    with pytest.raises(ChangedError):
        write_archive(selection, tmp_path / "a.tar.zst", Description())


@pytest.mark.parametrize("change", ["shrinks", "same size", "vanishes", "becomes a link"])
def test_every_kind_of_change_is_found(change, tmp_path):
    path = tmp_path / "file"
    path.write_text("12345678")
    member = file_member("file", str(path))
    time.sleep(0.02)
    if change == "shrinks":
        path.write_text("1")
    elif change == "same size":
        path.write_text("87654321")
    elif change == "vanishes":
        path.unlink()
    else:
        path.rename(tmp_path / "other")
        path.symlink_to("other")
    with (
        (tmp_path / "out").open("wb") as file,
        pytest.raises(ArchiveError),
        Packer(file, 0, top="t") as packer,
    ):
        packer.add(member)


@pytest.mark.parametrize(
    ("place", "name"),
    [("config/run.yaml", "config/run.yaml"), ("outputs/out.txt", "outputs/out.txt")],
)
def test_what_is_not_as_it_was_made_is_not_packed(bundle, tmp_path, place, name):
    with (bundle.path / place).open("a") as file:
        file.write("more")
    with pytest.raises(VerificationError, match=f"altered: {name}") as caught:
        pack(bundle, tmp_path / "a.tar.zst")
    assert caught.value.message.startswith(f"{bundle.path} is not as it was made")
    assert f"`valska verify {bundle.path}`" in caught.value.hint
    assert not hidden(tmp_path)


def test_an_altered_reference_is_named_by_its_place_in_the_bundle(tmp_path):
    big = tmp_path / "sky.txt"
    big.write_text("from afar\n")
    bundle = finished(tmp_path, inputs={"data.txt": big}, copy_limit=0)
    big.write_text("from anear\n")
    with pytest.raises(VerificationError, match=r"altered: inputs/data\.txt"):
        pack(bundle, tmp_path / "a.tar.zst")


def test_a_link_to_a_file_beside_it_is_packed(bundle, tmp_path):
    (bundle.outputs / "latest").symlink_to("out.txt")
    pack(bundle, tmp_path / "a.tar.zst")
    member, _ = entries(tmp_path / "a.tar.zst")["r1/data/bundle/outputs/latest"]
    assert member.type == tarfile.SYMTYPE
    assert member.linkname == "out.txt"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../outside", "nothing", "."])
def test_other_links_are_not_packed(bundle, tmp_path, target):
    (tmp_path.parent / "outside").write_text("x")
    (bundle.outputs / "latest").symlink_to(target)
    with pytest.raises(NotPackableError, match="symbolic link") as caught:
        pack(bundle, tmp_path / "a.tar.zst")
    assert caught.value.exit_code == 2


def test_a_pipe_and_odd_names_are_not_packed(bundle, tmp_path):
    os.mkfifo(bundle.outputs / "pipe")
    with pytest.raises(NotPackableError, match="neither a file nor a directory"):
        pack(bundle, tmp_path / "a.tar.zst")
    (bundle.outputs / "pipe").unlink()
    (bundle.outputs / "new\nline").write_text("")
    with pytest.raises(NotPackableError, match="control characters"):
        pack(bundle, tmp_path / "a.tar.zst")
    (bundle.outputs / "new\nline").unlink()
    for name in ("Same.txt", "same.txt"):
        (bundle.outputs / name).write_text("")
    with pytest.raises(NotPackableError, match="one name on some file systems"):
        pack(bundle, tmp_path / "a.tar.zst")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\u2028b", "control characters"),
        ("a\x85b", "control characters"),
        ("d/" * 99 + "f", "deep"),
    ],
)
def test_what_could_not_be_unpacked_is_not_packed(bundle, tmp_path, name, words):
    (bundle.logs / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.logs / name).write_text("x")
    with pytest.raises(NotPackableError, match=words):
        pack(bundle, tmp_path / "a.tar.zst")
    assert not (tmp_path / "a.tar.zst").exists()


def test_names_with_blanks_and_letters_beyond_ascii_are_packed(bundle, tmp_path):
    (bundle.outputs / 'a "name", ünlike: others').write_text("x")
    (bundle.outputs / ("long" * 60)).write_text("x")
    pack(bundle, tmp_path / "a.tar.zst")
    names = {name.rpartition("/")[2] for name in entries(tmp_path / "a.tar.zst")}
    assert {'a "name", ünlike: others', "long" * 60} <= names


def test_a_full_disk_is_a_clear_error(bundle, tmp_path):
    (bundle.logs / "noise.log").write_bytes(os.urandom(1 << 20))
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from valska.cli import main\n"
        "main(['archive', sys.argv[1], '-o', sys.argv[2]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, bundle.path, tmp_path / "a.tar.zst"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "nothing was left behind" in done.stderr
    assert not hidden(tmp_path)
    assert not (tmp_path / "a.tar.zst").exists()


def test_a_disk_that_fills_up_within_a_large_file_is_no_fault_of_that_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20) * 64)
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left"),
        Packer(full, 0, top="t") as packer,
    ):
        packer.add(file_member("file", str(path)))


def test_memory_does_not_grow_with_size(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        for _ in range(96):
            file.write(os.urandom(1 << 20) + bytes(3 << 20))
    script = (
        "import pathlib, sys\n"
        "from valska.external_tools.core.archive.members import walk\n"
        "from valska.external_tools.core.archive.packing import Packer\n"
        "with open(sys.argv[2], 'wb') as file, Packer(file, 0, top='t') as packer:\n"
        "    for member in walk(sys.argv[1], 'data'):\n"
        "        packer.add(member)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(status.partition('VmHWM:')[2].split()[0])\n"
    )
    command = [sys.executable, "-c", script, tmp_path, tmp_path.parent / "packed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 200 * 1024


def test_progress_is_told_up_to_the_end(bundle, tmp_path):
    (bundle.logs / "long.log").write_bytes(os.urandom(5 << 20))
    told = []
    selection = select_bundle(bundle, Choice())
    write_archive(
        selection, tmp_path / "a.tar.zst", Description(), progress=lambda *now: told.append(now)
    )
    done = [one for one, _ in told]
    assert len(told) > 3
    assert done == sorted(done)
    assert {total for _, total in told} == {told[0][1]}
    assert told[-1][0] <= told[-1][1]


def test_a_referenced_input_is_packed_or_left_out(tmp_path):
    big = tmp_path / "sky.txt"
    big.write_text("hello\n")
    made = make_bundle(tmp_path, inputs={"data.txt": big}, copy_limit=0)
    pack(made, tmp_path / "all.tar.zst")
    found = entries(tmp_path / "all.tar.zst")
    assert found["r1/data/references/inputs/data.txt"][1] == b"hello\n"
    site = found["r1/data/bundle/site.env"][1].decode()
    assert '[inputs/data.txt]="$common"/../references/inputs/data.txt' in site
    pack(made, tmp_path / "copied.tar.zst", inputs="copied")
    assert "r1/data/references" not in entries(tmp_path / "copied.tar.zst")
    big.unlink()
    with pytest.raises(LeftOutError, match=r"inputs/data\.txt"):
        pack(made, tmp_path / "gone.tar.zst")


def test_inputs_and_outputs_can_be_left_out(bundle, tmp_path):
    pack(bundle, tmp_path / "a.tar.zst", inputs="none", outputs=False)
    names = set(entries(tmp_path / "a.tar.zst"))
    assert "r1/data/bundle/inputs/data.txt" not in names
    assert "r1/data/bundle/outputs/out.txt" not in names
    assert "r1/data/bundle/outputs" in names


def test_walk_names_what_cannot_be_read(tmp_path):
    with pytest.raises(ArchiveError, match="cannot read"):
        list(walk(str(tmp_path / "nothing"), "data"))


def test_authors_make_a_citation(bundle, tmp_path):
    about = Description(title="T", authors=(Author("Josiah Carberry", "0000-0002-1825-0097"),))
    pack(bundle, tmp_path / "a.tar.zst", about)
    text = entries(tmp_path / "a.tar.zst")["r1/data/CITATION.cff"][1].decode()
    assert "family-names: Carberry" in text
    assert "https://orcid.org/0000-0002-1825-0097" in text


def test_stages_and_tar_end_as_they_should(tmp_path):
    made = finished(tmp_path, [stage("one"), stage("two", ("touch", "two.txt"), ["two.txt"])])
    pack(made, tmp_path / "a.tar.zst")
    assert plain_tar(tmp_path / "a.tar.zst").endswith(bytes(1024))

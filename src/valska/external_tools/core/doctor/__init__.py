"""What this machine has of what runs need; each check says what to do where it fails."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from valska.external_tools.core.config import Settings, default_settings, resolve
from valska.external_tools.core.config.file import find_runtime_paths
from valska.external_tools.core.doctor.checks import Check, Machine, Status, exec_command
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.process import Completed
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import Tool, load_tool, tool_names

FREE_BYTES = 2 << 30
OLDEST_APPTAINER = (1, 1)


def diagnose(config: Path | None = None) -> tuple[Check, ...]:
    """Look at this machine.

    Parameters
    ----------
    config
        The configuration file that the user named.

    Returns
    -------
    tuple of Check
        In an order in which a newcomer would put things right.
    """
    configuration, settings = check_configuration(config)
    machine = Machine(settings)
    return (
        configuration,
        check_apptainer(machine),
        check_namespaces(machine),
        check_fuse(machine),
        check_squashfuse(machine),
        check_subuid(machine),
        check_mksquashfs(machine),
        check_sbatch(machine),
        *check_slurm(machine),
        check_store(settings.images),
        check_results_root(settings),
        *check_tools(tool_names()),
        *check_images(machine, tool_names(), config),
    )


def is_ready(checks: Iterable[Check]) -> bool:
    """Return whether a run can be bundled, submitted and run here."""
    return all(check.status is not Status.MISSING for check in checks)


def check_configuration(path: Path | None) -> tuple[Check, Settings]:
    """Find, read and check the configuration; the defaults hold where that fails."""
    try:
        found = find_runtime_paths(path)
        settings = resolve(path=path)
    except ValskaError as error:
        advice = error.hint or "Put it right."
        check = Check("configuration", Status.MISSING, error.message, advice)
        return check, default_settings()
    text = str(found) if found else "no file; the defaults hold"
    return Check("configuration", Status.OK, text), settings


def check_apptainer(machine: Machine) -> Check:
    """Run Apptainer, after the site's set-up lines."""
    settings = machine.settings
    lines = "\n".join([*settings.setup, 'exec "$0" version'])
    done = machine.ask("bash", "-c", lines, settings.apptainer)
    if done is None or done.returncode:
        return Check(
            "apptainer",
            Status.MISSING,
            f"{settings.apptainer} does not run",
            "Install Apptainer, or name it (apptainer) or load it (setup) in the configuration.",
        )
    lines_out = done.stdout.split()
    version = lines_out[-1] if lines_out else "unknown"
    if _version(version) < OLDEST_APPTAINER:
        advice = f"Use {'.'.join(map(str, OLDEST_APPTAINER))} or later."
        return Check("apptainer", Status.WARN, f"version {version}", advice)
    return Check("apptainer", Status.OK, f"version {version}")


def check_namespaces(machine: Machine) -> Check:
    """Make a user namespace."""
    done = machine.ask("unshare", "--user", "--map-root-user", "true")
    if done and done.returncode == 0:
        return Check("user namespaces", Status.OK, "one was made")
    return Check(
        "user namespaces",
        Status.WARN,
        "none can be made" if done else "unshare is not here to try",
        "An administrator can allow them (sysctl user.max_user_namespaces, "
        "kernel.apparmor_restrict_unprivileged_userns=0); a setuid Apptainer runs without.",
    )


def check_fuse(machine: Machine) -> Check:
    """Open the FUSE device."""
    try:
        os.close(os.open(machine.fuse, os.O_RDWR))
    except OSError as error:
        return Check(
            "fuse",
            Status.WARN,
            f"{machine.fuse}: {(error.strerror or '').lower()}",
            "Without it Apptainer unpacks the image for every run: slow, and as large as the "
            "image. An administrator can load the fuse module and allow the device.",
        )
    return Check("fuse", Status.OK, str(machine.fuse))


def check_squashfuse(machine: Machine) -> Check:
    """Find squashfuse, on the PATH or among Apptainer's own programs."""
    names = ("squashfuse_ll", "squashfuse")
    found = next((path for name in names if (path := machine.which(name))), None)
    found = found or _bundled(machine, names)
    if found:
        return Check("squashfuse", Status.OK, found)
    return Check(
        "squashfuse",
        Status.WARN,
        "not found",
        "Install squashfuse; without it an unprivileged Apptainer unpacks the image every time.",
    )


def check_subuid(machine: Machine) -> Check:
    """Look for a range of subordinate user ids, which image builds need."""
    uid = os.geteuid() if machine.uid is None else machine.uid
    names = {str(uid), _user_name(uid)}
    lacking = [
        name
        for name in ("subuid", "subgid")
        if not any(line.split(":")[0] in names for line in _lines(machine.etc / name))
    ]
    if not lacking:
        return Check("subordinate ids", Status.OK, "ranges for user and group")
    where = " and ".join(str(machine.etc / name) for name in lacking)
    return Check(
        "subordinate ids",
        Status.WARN,
        f"none in {where}",
        f"Image builds may need them: an administrator runs `usermod --add-subuids "
        f"100000-165535 --add-subgids 100000-165535 {_user_name(uid)}`.",
    )


def check_mksquashfs(machine: Machine) -> Check:
    """Find mksquashfs, which image builds need."""
    found = machine.which("mksquashfs")
    if found:
        return Check("mksquashfs", Status.OK, found)
    return Check(
        "mksquashfs",
        Status.WARN,
        "not found",
        "Install squashfs-tools to build images here; running them needs none.",
    )


def check_sbatch(machine: Machine) -> Check:
    """Find sbatch."""
    settings = machine.settings
    found = machine.which(settings.sbatch)
    if found:
        return Check("sbatch", Status.OK, found)
    if settings.scheduler == "slurm":
        return Check(
            "sbatch",
            Status.MISSING,
            f"{settings.sbatch} is not here, but the configuration says scheduler: slurm",
            "Log in to the cluster, load its Slurm module, or name sbatch in the configuration.",
        )
    return Check(
        "sbatch",
        Status.WARN,
        "no Slurm here",
        "Nothing to do: jobs run on this machine with the built-in local scheduler.",
    )


def check_slurm(machine: Machine) -> Iterator[Check]:
    """Ask the queue and the accounting, where there is Slurm."""
    if machine.settings.scheduler == "local" or not machine.which(machine.settings.sbatch):
        return
    done = machine.ask("squeue", "--noheader", "--user", str(os.geteuid()))
    if done is None or done.returncode:
        yield Check(
            "squeue",
            Status.MISSING,
            _why(done),
            "Ask whether the cluster is down, or use --scheduler local.",
        )
    else:
        yield Check("squeue", Status.OK, "the queue answers")
    done = machine.ask("sacct", "--noheader", "--starttime", "now-1minutes")
    if done is None or done.returncode:
        advice = "Nothing to do: status then goes by the records that the jobs themselves write."
        yield Check("accounting", Status.WARN, _why(done), advice)
    else:
        yield Check("accounting", Status.OK, "sacct answers")


def check_place(name: str, path: Path, advice: str, free_bytes: int = FREE_BYTES) -> Check:
    """Write into a directory, or into the one that it would be made in, leaving nothing behind."""
    existing = next((place for place in (path, *path.parents) if place.exists()), path)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
        free = shutil.disk_usage(existing).free
    except OSError as error:
        reason = (error.strerror or "").lower()
        return Check(name, Status.MISSING, f"{path} cannot be written: {reason}", advice)
    text = f"{path} ({free / (1 << 30):.1f} GiB free)"
    if free < free_bytes:
        need = f"{free_bytes >> 30} GiB are wanted."
        return Check(name, Status.WARN, text, f"Free some space: {need}")
    return Check(name, Status.OK, text)


def check_store(path: Path) -> Check:
    """Write into the image store; one that can only be read is good enough to run."""
    check = check_place("image store", path, "Set images in the configuration.")
    if check.status is Status.MISSING and os.access(path, os.R_OK | os.X_OK):
        advice = "Its images can be used; to build one, set images in the configuration."
        return replace(check, status=Status.WARN, advice=advice)
    return check


def check_results_root(settings: Settings) -> Check:
    """Write into the results root, where there is one."""
    if settings.results_root is None:
        return Check(
            "results root",
            Status.WARN,
            "not set",
            "Set results_root in the configuration, or name each bundle's place with -o.",
        )
    return check_place("results root", settings.results_root, "Set results_root to another place.")


def check_tools(names: tuple[str, ...]) -> Iterator[Check]:
    """Load every tool."""
    if not names:
        yield Check("tools", Status.MISSING, "none installed", "Reinstall valska.")
    for name in names:
        try:
            tool = load_tool(name)
        except ValskaError as error:
            advice = error.hint or "Reinstall or remove that plugin."
            yield Check(f"tool {name}", Status.WARN, error.message, advice)
        else:
            yield Check(f"tool {name}", Status.OK, tool.summary)


def check_images(machine: Machine, names: tuple[str, ...], config: Path | None) -> Iterator[Check]:
    """Look for each tool's image, and run something in it."""
    checks = [
        check
        for name in names
        if (tool := _tool(name)) and (check := _check_image(machine, tool, config))
    ]
    usable = any(check.status is Status.OK for check in checks)
    for check in checks:
        if usable and check.status is Status.MISSING:
            yield replace(check, status=Status.WARN)
        else:
            yield check


def _check_image(machine: Machine, tool: Tool, config: Path | None) -> Check | None:
    name = f"image of {tool.name}"
    try:
        settings = resolve(tool.name, path=config)
        if settings.runner != RunnerKind.CONTAINER:
            return None
        store = ImageStore(settings.images)
        image = resolve_image(
            settings.image, store, definition=tool.definition, apptainer=settings.apptainer
        )
    except ValskaError as error:
        advice = error.hint or "Name one: image, in the tool's section of the configuration."
        return Check(name, Status.MISSING, error.message, advice)
    inside = replace(machine, settings=settings).in_image(image.path, "true")
    if inside is None or inside.returncode:
        advice = "Run it by hand to see why: " + shlex.join(
            exec_command(settings, image.path, "true")
        )
        return Check(name, Status.MISSING, f"{image.path} does not run: {_why(inside)}", advice)
    return Check(name, Status.OK, f"{image.sha256[:12]} runs")


def _tool(name: str) -> Tool | None:
    try:
        return load_tool(name)
    except ValskaError:
        return None


def _version(text: str) -> tuple[int, ...]:
    digits = text.split("-")[0].split("+")[0].split(".")
    return tuple(int(part) for part in digits if part.isdecimal())


def _bundled(machine: Machine, names: tuple[str, ...]) -> str | None:
    program = machine.which(machine.settings.apptainer)
    if program is None:
        return None
    prefix = Path(program).resolve().parent.parent
    places = (prefix / "libexec/apptainer/bin", prefix / "lib/x86_64-linux-gnu/apptainer/bin")
    found = (place / name for place in places for name in names)
    return next((str(path) for path in found if path.is_file()), None)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _why(done: Completed | None) -> str:
    if done is None:
        return "it is not here or does not answer"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"

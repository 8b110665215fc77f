"""pyuvsim through Slurm: its numbers are those of pyuvsim run by hand."""

import subprocess
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from slurmjobs import record_of

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

TEMPLATES = ("hera_small", "ref_1_1")
BEAM = "telescope_config.beam_paths.0.path_variable"
FROM_THE_WHEEL = (
    "HERA_NicCST.beamfits",
    "single_source.txt",
    "testfile_singlesource.uvh5",
    "test_config/28m_triangle_10time_10chan.yaml",
    "test_config/param_1time_1src_testcat.yaml",
    "test_config/triangle_bl_layout.csv",
)
WHERE = "from importlib.util import find_spec as f; print(*f('pyuvsim').submodule_search_locations)"
TWO = ("--slurm", "ntasks=2")


class Runs:
    """Simulations that all run at once: by Slurm, and by hand."""

    def __init__(self, user, image):
        self.user, self.image = user, image
        self.data = user.work / "of the wheel"
        self.data.mkdir()
        user.own(self.data)
        self._copy_out_of_the_wheel()
        self.by_hand = {name: self._start_by_hand(name) for name in TEMPLATES}
        self.templates = {name: self._start(self._bundle(name)) for name in TEMPLATES}
        self.alone = self._send_alone()
        self.mpiexec = self._start(self._single("mpiexec", *TWO))
        nodes = (*TWO, "--slurm", "nodes=2", "--launch", "srun")
        self.srun = self._start(self._single("srun", *nodes))
        apart = user.write("apart.yaml", "srun_mpi: none\n")
        self.apart = self._start(self._single("apart", *nodes), "--config", apart)

    def _copy_out_of_the_wheel(self):
        found = self.user.run("apptainer", "exec", self.image, "python3", "-c", WHERE)
        copy = 'cd "$0" && cp --parents "$@" /mnt'
        self.user.run(
            "apptainer", "exec", "--bind", f"{self.data}:/mnt", self.image,
            "bash", "-c", copy, found.stdout.strip() + "/data", *FROM_THE_WHEEL,
        )  # fmt: skip

    def _start_by_hand(self, name):
        """Run the template as its owner would, from the directory that it lies in."""
        place = self.user.work / f"{name} by hand"
        self.user.valska("templates", "pyuvsim", "--copy", name, place)
        source = next(place.glob("*.yaml"))
        return place, self.user.start(
            "apptainer", "exec", "--cleanenv", "--bind", place, "--pwd", place, self.image,
            "run_pyuvsim", "--param", source.name, "--quiet",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _bundle(self, name):
        return self.user.bundle("pyuvsim", "--template", name, *self._with_image(), output=name)

    def _single(self, name, *options):
        source = self.data / "test_config" / "param_1time_1src_testcat.yaml"
        beam = ("--override", f"{BEAM}={self.data}")
        return self.user.bundle(
            "pyuvsim", source, *beam, *options, *self._with_image(), output=name
        )

    def _with_image(self):
        return "--image", f"sha256:{self.image.stem}"

    def _start(self, bundle, *options):
        process = self.user.start(
            self.user.bin / "valska", "submit", bundle, "--wait", *options,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return bundle, process

    def _send_alone(self):
        """Move a bundle and send it without valska."""
        moved = self.user.work / "another place" / "it's here"
        moved.parent.mkdir()
        self.user.own(moved.parent)
        bundle = self._single("single").rename(moved)
        self.user.run(
            "sbatch", "submit_simulate.sh", cwd=bundle, with_valska=False, env={"PYTHONPATH": ""}
        )
        return bundle

    def finished(self, started):
        """Wait for `submit --wait` and return the bundle and what was said."""
        bundle, process = started
        _, said = process.communicate(timeout=600)
        return bundle, process.returncode, said

    def completed(self, started):
        """Wait for a run that has to succeed."""
        bundle, code, said = self.finished(started)
        assert code == 0, said
        return bundle


@pytest.fixture(scope="module")
def runs(slurm, account, pyuvsim_image):
    return Runs(account.in_directory("pyuvsim"), pyuvsim_image)


@contextmanager
def opened(folder):
    (path,) = folder.rglob("*.uvh5")
    with h5py.File(path) as file:
        yield file


def visibilities(folder):
    with opened(folder) as file:
        return file["Data/visdata"][()]


def history(folder):
    with opened(folder) as file:
        return file["Header/history"][()].decode()


def datasets(folder):
    """Return every array of a file; not the history and the keywords, which name paths."""
    found = {}
    with opened(folder) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    paths = ("Header/history", "Header/extra_keywords/")
    return {name: values for name, values in found.items() if not name.startswith(paths)}


@pytest.mark.parametrize("name", TEMPLATES)
def test_visibilities_are_those_of_a_run_by_hand(runs, name):
    bundle = runs.completed(runs.templates[name])
    assert runs.user.states(bundle) == {"simulate": "completed"}
    runs.user.valska("verify", bundle)
    place, process = runs.by_hand[name]
    assert process.wait(timeout=600) == 0
    ours, theirs = datasets(bundle / "outputs"), datasets(place)
    assert np.abs(ours["Data/visdata"]).max() > 0
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        np.testing.assert_array_equal(ours[key], values, key)


def test_a_moved_bundle_runs_without_valska_and_agrees_with_pyuvsims_own_reference(runs):
    """As upstream's test_run_one_source does, on the reference data in its wheel."""
    done = runs.user.valska("status", runs.alone, "--watch", timeout=600)
    assert runs.user.states(runs.alone) == {"simulate": "completed"}, done.stdout
    runs.user.valska("verify", runs.alone)
    ours, reference = datasets(runs.alone / "outputs"), datasets(runs.data)
    np.testing.assert_allclose(
        ours["Data/visdata"], reference["Data/visdata"], rtol=1e-7, atol=0, strict=True
    )
    for key in ("ant_1_array", "ant_2_array", "time_array", "freq_array", "polarization_array"):
        np.testing.assert_array_equal(ours[f"Header/{key}"], reference[f"Header/{key}"], key)


def test_two_ranks_in_one_container_are_one_world(runs):
    bundle = runs.completed(runs.mpiexec)
    assert "Npus = 2" in history(bundle / "outputs")
    runs.user.valska("status", runs.alone, "--watch", timeout=600)
    np.testing.assert_array_equal(
        visibilities(bundle / "outputs"), visibilities(runs.alone / "outputs")
    )


def test_two_ranks_on_two_nodes_are_one_world(runs):
    bundle = runs.completed(runs.srun)
    assert record_of(bundle, "simulate")["slurm"]["SLURM_JOB_NUM_NODES"] == "2"
    assert "Npus = 2" in history(bundle / "outputs")
    runs.user.valska("status", runs.alone, "--watch", timeout=600)
    np.testing.assert_array_equal(
        visibilities(bundle / "outputs"), visibilities(runs.alone / "outputs")
    )


def test_ranks_that_fall_apart_are_refused(runs):
    bundle, code, said = runs.finished(runs.apart)
    assert code == 1
    assert "each rank reports a world of: 1 1" in said
    assert record_of(bundle, "simulate")["state"] == "refused"
    assert not list(bundle.glob("outputs/*"))

# A contract program, not BayesEoR: same command line, path rules, refusals and output tree.
"""It infers nothing. It stands where BayesEoR's driver stands in the image of bayeseor.def, and
needs nothing but Python 3, so that tests can run all stages in seconds and anywhere.

Knobs: the visibilities may be a JSON file, and ``contract.json`` may lie in the working directory
(it wins). Keys: ``channels``, ``width``, ``first`` (Hz) of the data; ``truth``: parameter to
the value at which the null test passes; ``seconds``: by stage, ``matrices`` or the name of
``output_dir``, how long it takes; ``exit``: by stage, the code to end with instead of working;
``blocks``: size of each matrix in 64 bytes.
"""

import ast
import hashlib
import json
import math
import os
import random
import re
import sys
import time
from pathlib import Path

VERSION = "2.0.1.dev33"
FLAGS = (
    "quiet clobber run build_Finv_and_Fprime use_LWM_Gaussian_prior fit_for_monopole calc_noise "
    "fit_for_spectral_model_parameters simple_za_filter use_intrinsic_noise_fitting form_pI "
    "save_vis achromatic_beam fit_for_shg_amps redundant_avg uniform_redundancy save_model"
)
SWITCHES = {
    "use_gpu": ("--gpu", "--cpu"), "use_sparse_matrices": ("--sparse-mats", "--dense-mats"),
    "log_priors": ("--log-priors", "--lin-priors"), "use_Multinest": ("--multinest", "--polychord"),
    "include_instrumental_effects": ("--model-instrument", "--no-instrument"),
    "drift_scan": ("--drift-scan", "--phased"),
}  # fmt: skip
COUNTS = "nf freq_idx_min neta nq nt jd_idx_min nside nu nv nu_fg nv_fg noise_seed nu_sh nv_sh"
NUMBERS = (
    "inverse_LW_power df freq_min freq_center pl_min pl_max pl_grid_spacing dt jd_min jd_center "
    "fov_ra_eor fov_dec_eor fov_ra_fg fov_dec_fg sigma fwhm_deg antenna_diameter cosfreq "
    "beam_ref_freq beam_peak_amplitude bl_cutoff pI_norm phase_time"
)
LISTS = "priors beta telescope_latlonalt beam_center"
TEXTS = (
    "array_dir_prefix uprior_bins output_dir file_root_dir inst_model beam_type taper_func "
    "data_path noise_data_path ant_str pol"
)
DEFAULTS = {
    **dict.fromkeys(FLAGS.split(), False),
    **dict.fromkeys(SWITCHES, True),
    **dict.fromkeys(f"{COUNTS} {NUMBERS} {LISTS} {TEXTS}".split()),
    "simple_za_filter": True, "form_pI": True, "nq": 0, "beta": [2.63, 2.82], "pol": "xx",
    "array_dir_prefix": "./matrices/", "output_dir": "./chains/", "uprior_bins": "",
    "inverse_LW_power": 1e-16, "noise_seed": 742123, "beam_peak_amplitude": 1.0,
    "ant_str": "cross", "pI_norm": 1.0,
}  # fmt: skip
NOT_OF_MATRICES = (
    "quiet clobber run use_gpu array_dir_prefix output_dir file_root_dir priors log_priors "
    "uprior_bins inverse_LW_power noise_seed data_path save_vis save_model"
)
MATRICES = (
    "Finv_Fprime.npz Fz.npz N.npz Ninv.npz Ninv_T.h5 T.h5 T_Ninv_T.h5 gridding_matrix_vo2co.npz "
    "gridding_matrix_vo2co_fg.npz idft_array_1d.h5 idft_array_1d_fg.npz multi_vis_idft_array_1d.npz"
)
NEEDED = ("N.npz", "Ninv.npz", "T.h5", "T_Ninv_T.h5", "version.txt")
SPEED_OF_LIGHT, HUBBLE, LINE = 299792.458, 67.66, 1420.40575177e6


class UsageError(Exception):
    """What makes the real parser print its usage and end with 2."""


# --- The command line and the configuration -------------------------------------------------------


def parse_command(words):
    """Later settings win, so that options before ``--config`` lose."""
    settings, config, words = dict(DEFAULTS), None, list(words)
    while words:
        option, equals, value = words.pop(0).partition("=")
        switch = next((key for key, names in SWITCHES.items() if option in names), None)
        key = option.removeprefix("--").replace("-", "_")
        key = {"inverse_lw_power": "inverse_LW_power", "tele_latlonalt": "telescope_latlonalt"}.get(
            key, key
        )
        if switch and not equals:
            settings[switch] = option == SWITCHES[switch][0]
        elif option.startswith("--") and "_" not in option and key in FLAGS.split() and not equals:
            settings[key] = True
        elif option == "--config" or (
            option.startswith("--") and "_" not in option and key in DEFAULTS and not switch
        ):
            if not equals and not words:
                raise UsageError(f"expected one argument: {option}")
            value = value if equals else words.pop(0)
            if option == "--config":
                config = Path(value)
                settings.update(parse_configuration(config))
            else:
                settings[key] = typed(key, scalar(value), Path())
        else:
            raise UsageError(f"Unrecognized arguments: {option}")
    if settings["beam_type"]:
        settings["beam_type"] = settings["beam_type"].lower()
    return settings, config


def parse_configuration(path):
    if not path.is_file():
        raise UsageError(f'Parser key "config": File does not exist: {str(path)!r}')
    found = {}
    for key, value in flat_yaml(path.read_text(encoding="utf-8")).items():
        if key not in DEFAULTS:
            raise UsageError(f"Validation failed: Key {key!r} is not expected")
        found[key] = typed(key, value, path.absolute().parent)
    return found


def flat_yaml(text):
    """Read ``key: value`` lines; a value may go on in lines that are indented."""
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines())
    pairs = []
    for line in filter(None, lines):
        if line[0].isspace():
            pairs[-1][1] += f" {line.strip()}"
        else:
            key, _, value = line.partition(":")
            pairs.append([key.strip(), value.strip()])
    return {key: scalar(value) for key, value in pairs}


def scalar(text):
    words = {"true": True, "false": False, "null": None, "": None, "~": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def typed(key, value, base):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    expected = None
    if key in FLAGS.split() or key in SWITCHES:
        expected = None if isinstance(value, bool) else "bool"
    elif value is None:
        return None
    elif key in COUNTS.split():
        expected = None if number and isinstance(value, int) else "int"
    elif key in NUMBERS.split():
        expected = None if number else "float"
    elif key in LISTS.split():
        expected = None if isinstance(value, list) else "list"
    elif key in ("data_path", "noise_data_path", "inst_model"):
        there = Path.is_dir if key == "inst_model" else Path.is_file
        if not there(base / str(value)):
            raise UsageError(f'Parser key "{key}":\n  File does not exist: {str(base / value)!r}')
        return str(base / value)
    if expected:
        raise UsageError(f'Parser key "{key}":\n  Expected a {expected}. Got value: {value}')
    return value


# --- What the data and the configuration amount to ------------------------------------------------


def knobs_of(settings):
    found = {}
    for path in (Path(settings["data_path"]), Path("contract.json")):
        try:
            found.update(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


def check(settings):
    if settings["sigma"] is None and not (settings["noise_data_path"] and settings["calc_noise"]):
        raise ValueError("sigma cannot be None if noise_data_path is None or calc_noise is False.")
    if settings["include_instrumental_effects"] and settings["telescope_latlonalt"] is None:
        raise ValueError(
            "telescope_latlonalt cannot be None if include_instrumental_effects is true"
        )
    if settings["save_vis"] or settings["save_model"]:
        raise AttributeError("'Path_fr' object has no attribute 'as_posix'")
    if settings["data_path"] is None:
        raise NotImplementedError("data_path must not be None.")
    if "." not in settings["beam_type"]:
        kinds = ("uniform", "gaussian", "airy", "gausscosine", "taperairy", "tanhairy")
        assert settings["beam_type"] in kinds, f"Only {', '.join(kinds)} beams are supported."
    elif not Path(settings["beam_type"]).is_file():
        raise FileNotFoundError(2, "No such file or directory", settings["beam_type"])


def channels_of(settings, knobs):
    """Return number, width and lowest frequency of the channels; ``nf`` alone selects none."""
    chosen = settings["freq_idx_min"] is not None or settings["freq_min"] is not None
    width = settings["df"] or knobs.get("width", 237618.0)
    count = settings["nf"] if chosen and settings["nf"] else knobs.get("channels", 38)
    lowest = settings["freq_min"] or knobs.get("first", 158.3e6)
    return count, width, lowest + (settings["freq_idx_min"] or 0) * width


def k_bins(settings, channels):
    """Return mean, least and number of the k in each bin, in 1/Mpc, of the real grid of modes."""
    count, width, lowest = channels
    z = LINE / (lowest + (count - 1) / 2 * width) - 1
    expansion = [math.sqrt(0.30966 * (1 + z * i / 500) ** 3 + 0.69034) for i in range(501)]
    distance = sum(1 / e for e in expansion) * z / 500 * SPEED_OF_LIGHT / HUBBLE
    depth = SPEED_OF_LIGHT / HUBBLE / expansion[-1] * (1 + z) ** 2 / LINE * width * count
    across = distance * math.radians(settings["fov_ra_eor"])
    along = distance * math.radians(settings["fov_dec_eor"] or settings["fov_ra_eor"])
    nu, neta = settings["nu"], settings["neta"] or count
    nv = settings["nv"] or nu
    step = 2 * math.pi / depth
    bins = {}
    for z in range(-(neta // 2), neta // 2 + neta % 2):
        for v in range(-(nv // 2), nv // 2 + 1):
            for u in range(-(nu // 2), nu // 2 + 1):
                if z and (u or v):
                    k = (
                        2
                        * math.pi
                        * math.sqrt((z / depth) ** 2 + (v / along) ** 2 + (u / across) ** 2)
                    )
                    number = max(0, math.ceil(math.log(k / step / 2) / math.log(1.35)))
                    bins.setdefault(number, []).append(k)
    return [bins[number] for number in sorted(bins)]


def matrix_directory(settings, channels):
    """Return the directory of the matrices; its names are rounded, as the real ones are."""
    s, (count, width, lowest) = settings, channels
    nv, neta = s["nv"] or s["nu"], s["neta"] or count
    beam = s["beam_type"]
    if "." in beam:
        beam = Path(beam).stem
    elif beam in ("gaussian", "gausscosine"):
        beam += f"-fwhm{s['fwhm_deg']:.4f}d" if s["fwhm_deg"] else f"-diam{s['antenna_diameter']}m"
    elif beam in ("airy", "taperairy"):
        beam += f"-diam{s['antenna_diameter']}m"
    if s["achromatic_beam"]:
        beam = f"achromatic-{beam}"
    return Path(
        s["array_dir_prefix"],
        f"nu{s['nu']}-nv{nv}-neta{neta}-nq{s['nq']}",
        f"fmin{lowest / 1e6:.2f}MHz-df{width / 1e3:.2f}kHz",
        f"fov{s['fov_ra_eor']:.1f}d{'' if s['simple_za_filter'] else '-rect'}-nside{s['nside']}",
        f"nbls30-nt{s['nt'] or 34}-dt11.00s",
        beam,
        f"sigma{s['sigma']:.2e}{'-noisevec' if s['noise_data_path'] else ''}",
    )


def chains_directory(settings, channels):
    """Return the directory of the chains: a new version where there are chains already."""
    s = settings
    if s["file_root_dir"]:
        print(f"Resuming analysis from existing output directory: \n{s['file_root_dir']=}")
        return Path(s["output_dir"], s["file_root_dir"])
    betas = "".join(f"-{beta:.2f}" for beta in s["beta"] or ())
    name = f"MN-{s['nu']}-{s['nv'] or s['nu']}-{s['neta'] or channels[0]}-{s['nq']}"
    name += f"{'-ffm' if s['fit_for_monopole'] else ''}{betas}-{s['sigma']:.1E}"
    name += f"{'-lp' if s['log_priors'] else ''}-dPS-v"
    version = 1
    while list(Path(s["output_dir"], f"{name}{version}").glob("*resume.dat")):
        version += 1
    return Path(s["output_dir"], f"{name}{version}")


# --- The stages -----------------------------------------------------------------------------------


def fail_if_told(knobs, stage):
    if stage in knobs.get("exit", {}):
        print(f"contract program: told to fail at {stage}", file=sys.stderr)
        sys.stdout.flush()
        # MultiNest ends a process so, also with 0.
        os._exit(int(knobs["exit"][stage]))


def build_matrices(settings, folder, knobs):
    """Write what is not there yet; content follows from the keys that define matrices.

    A file that is there is used as it is, also if it is of other keys, or was cut off by a kill.
    """
    print(f"\nMatrix stack directory: {folder}/\n")
    if settings["clobber"] and folder.exists():
        for path in folder.iterdir():
            path.unlink()
    if not all((folder / name).exists() for name in NEEDED):
        fail_if_told(knobs, "matrices")
        time.sleep(float(knobs.get("seconds", {}).get("matrices", 0)))
        keys = {key: value for key, value in settings.items() if key not in NOT_OF_MATRICES.split()}
        seed = json.dumps(keys, sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in MATRICES.split():
            if not (folder / name).exists():
                print(f"Writing data to {(folder / name).absolute()}")
                block = hashlib.sha512(f"{name}{seed}".encode()).digest()
                (folder / name).write_bytes(block * int(knobs.get("blocks", 16)))
        (folder / "version.txt").write_text(f"{VERSION}\n")
    for name in NEEDED[:-1]:
        if (folder / name).stat().st_size % 64:
            raise OSError(f"Unable to synchronously open file (truncated file: {name})")
    print("Matrix stack complete\n")


def save_k(folder, bins):
    columns = {
        "k-vals.txt": [sum(bin_) / len(bin_) for bin_ in bins],
        "k-vals-bins.txt": [*map(min, bins), max(bins[-1])],
        "k-vals-nsamples.txt": [float(len(bin_)) for bin_ in bins],
    }
    for name, values in columns.items():
        if not (folder / name).exists():
            (folder / name).write_text("".join(f"{value:.18e}\n" for value in values))


def on_gpu():
    try:
        import pycuda.autoinit  # noqa: F401
    except ImportError as error:
        print("\nException loading GPU encountered on rank 0...")
        print(repr(error), rank=0)


def fortran(value):
    """Return a number as MultiNest writes it."""
    if value == 0:
        return "    0.000000000000000000E+00"
    power = math.floor(math.log10(abs(value))) + 1
    mantissa = f"{abs(value) / 10.0**power:.18f}"
    if mantissa.startswith("1"):
        power, mantissa = power + 1, f"{abs(value) / 10.0 ** (power + 1):.18f}"
    return f"{'-' if value < 0 else ' '}{mantissa}E{power:+03d}".rjust(28)


def row(values, *last):
    return "".join(map(fortran, values)) + "".join(f"{value:4d}" for value in last) + "\n"


def strain(settings, knobs):
    """Return how far the beam is from the truth, as a fraction."""
    truth = knobs.get("truth", {"fwhm_deg": 9.306821090681533, "antenna_diameter": 14.0})
    found = [settings[key] / value - 1 for key, value in truth.items() if settings.get(key)]
    return found[0] if found else 0.0


def evidence(settings, knobs):
    """A wrong beam looks like a signal: without one in the model the evidence falls steeply."""
    square = strain(settings, knobs) ** 2
    means = [sum(pair) / 2 for pair in settings["priors"]]
    fits_signal = sum(means) / len(means) > 0
    value = -233.6 - 150.0 * square if fits_signal else -231.4 - 2350.0 * square
    return value, 0.06 if fits_signal else 2e-5


def sample(settings, folder, bins, knobs):
    """Sample for as long as the knobs say; what is there of an earlier attempt is kept."""
    stage = Path(settings["output_dir"]).name
    fail_if_told(knobs, stage)
    priors = settings["priors"]
    short = Path(".mn_chains_symlinks")
    short.mkdir(exist_ok=True)
    link = short / f"mn_{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.absolute())
    live, steps = 25 * len(bins), 5 * 25 * len(bins)
    value, error = evidence(settings, knobs)
    resume = link / "data-resume.dat"
    done = saved_steps(resume)
    how = "resuming" if done else "Warning: no resume file found, starting from scratch"
    print(f" MultiNest {how}")
    print(f" no. of live points = {live:4d}\n dimensionality = {len(bins):4d}", flush=True)
    dice = random.Random()
    delay = float(knobs.get("seconds", {}).get(stage, 0)) / steps

    def draw():
        middles = [low + (high - low) * dice.gauss(0.5, 0.12) for low, high in priors[: len(bins)]]
        return [min(max(x, low), high) for x, (low, high) in zip(middles, priors, strict=False)]

    with (link / "data-ev.dat").open("a") as rejected:
        for step in range(done + 1, steps + 1):
            time.sleep(delay)
            rejected.write(row([*draw(), value + dice.gauss(0, 1), -step / live], 1))
            if step % 25 == 0 or step == steps:
                rejected.flush()
                write_state(resume, step, step == steps, live, value)
                if step == 250:
                    write_preliminary(link, value)
                print(f"count {step}", flush=True)
    draws = [draw() for _ in range(200)]
    write_results(link, draws, value + dice.gauss(0, error), error, dice, resumed=done > 0)
    link.unlink()
    print("\nSampling complete!\n")
    print(f"Final MultiNest output base: {folder}")
    print(" Sampling finished. Exiting MultiNest")


def saved_steps(path):
    """Return what was saved; the real MultiNest cannot read its first points after most kills."""
    words = path.read_text().split() if path.exists() else ["F", "0"]
    if words == ["T"]:
        print("Fortran runtime error: End of file", file=sys.stderr)
        sys.stdout.flush()
        os._exit(2)
    return int(words[1])


def write_state(path, step, finished, live, value):
    """Write how far it is; the first flag of the last line but one says whether it is done."""
    state = f" F\n{step:12d}{step + 110:12d}           1{live:12d}\n{row([value, value])} T\n   0\n"
    state += f" {'T' if finished else 'F'} F     0{live:12d}\n{row([0.09, value, value])}"
    temporary = path.with_suffix(".part")
    temporary.write_text(state)
    temporary.replace(path)


def write_preliminary(folder, value):
    """Write what looks like a result long before the end, with a number that is none."""
    (folder / "data-.txt").write_text(row([1.0, -2 * value, 0.0]))
    (folder / "data-stats.dat").write_text(
        f"Nested Sampling Global Log-Evidence           :{fortran(value - 9)}  +/-{fortran(0.3)}\n"
        "Nested Importance Sampling Global Log-Evidence:    0.289255965501078540-314"
        "  +/-    0.690338838814825567-309\n"
    )


def write_results(folder, draws, value, error, dice, resumed):
    likelihoods = [value + 1 + dice.gauss(0, 0.3) for _ in draws]
    columns = list(zip(*draws, strict=True))
    means = [sum(column) / len(column) for column in columns]
    sigmas = [
        math.sqrt(sum((x - mean) ** 2 for x in column) / len(column))
        for column, mean in zip(columns, means, strict=True)
    ]
    best = draws[max(range(len(draws)), key=likelihoods.__getitem__)]
    pairs = list(zip(draws, likelihoods, strict=True))
    texts = {
        "data-.txt": [row([1 / len(draws), -2 * lnl, *point]) for point, lnl in pairs],
        "data-post_equal_weights.dat": [row([*point, lnl]) for point, lnl in pairs],
        "data-live.points": [row([0.5, *point[1:], lnl]) for point, lnl in pairs[:75]],
        "data-phys_live.points": [row([*point, lnl], 1) for point, lnl in pairs[:75]],
        "data-summary.txt": [row([*means, *sigmas, *best, *best, value, max(likelihoods)])] * 2,
        "data-stats.dat": stats(value, error, dice, means, sigmas, best, resumed),
        "data-IS.iterinfo": [], "data-IS.points": [], "data-IS.ptprob": [],
    }  # fmt: skip
    for name, lines in texts.items():
        (folder / name).write_text("".join(lines))


def stats(value, error, dice, means, sigmas, best, resumed):
    """The importance-sampled evidence is too high after a resume, as MultiNest's is."""
    important = value + dice.gauss(0, error / 3) + (0.5 if resumed else 0)
    rows = [(fortran(mean), fortran(sigma)) for mean, sigma in zip(means, sigmas, strict=True)]
    return [
        f"Nested Sampling Global Log-Evidence           :{fortran(value)}  +/-{fortran(error)}\n",
        f"Nested Importance Sampling Global Log-Evidence:{fortran(important)}",
        f"  +/-{fortran(error / 3)}\n",
        "\nDim No.       Mean        Sigma\n",
        *(f"{i:4d}{mean}{sigma}\n" for i, (mean, sigma) in enumerate(rows, 1)),
        "\nMaximum Likelihood Parameters\nDim No.        Parameter\n",
        *(f"{i:4d}{fortran(x)}\n" for i, x in enumerate(best, 1)),
        "\nMAP Parameters\nDim No.        Parameter\n",
        *(f"{i:4d}{fortran(x)}\n" for i, x in enumerate(best, 1)),
    ]


def main(words):
    print(f"\nbayeseor version = {VERSION}\n\nmpi_size = 1\n")
    try:
        settings, config = parse_command(words)
    except UsageError as error:
        print(f"usage: run-analysis.py [-h] [--config CONFIG] ...\nerror: {error}", file=sys.stderr)
        return 2
    if not settings["quiet"]:
        print(f"Config file: {config and config.absolute()}\n\n{settings}\n")
    check(settings)
    knobs = knobs_of(settings)
    channels = channels_of(settings, knobs)
    folder = chains_directory(settings, channels)
    folder.mkdir(parents=True, exist_ok=True)
    bins = k_bins(settings, channels)
    save_k(folder, bins)
    if not settings["quiet"]:
        print(f"\nk bins: {len(bins)}")
    build_matrices(settings, matrix_directory(settings, channels), knobs)
    if settings["use_gpu"]:
        on_gpu()
    if not settings["run"]:
        print("\nSkipping sampling, exiting...\n")
        return 0
    (folder / "version.txt").write_text(f"{VERSION}\n")
    if not (folder / "args.json").exists():
        (folder / "args.json").write_text(json.dumps(settings))
    if len(settings["priors"]) < len(bins):
        print("ERROR in prior: list index out of range", file=sys.stderr)
        write_preliminary(folder, 0.0)
        raise ValueError("could not convert string '-0.790505033345994471-322' to float64")
    sample(settings, folder, bins, knobs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""From the settings to what jobs have to know of this site."""

from __future__ import annotations

from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import ConfigError
from valska.external_tools.core.runner import CondaRunner, RunnerKind
from valska.external_tools.core.site import Site


def site_of(settings: Settings, runner: RunnerKind) -> Site:
    """Return what jobs have to know of the site that the settings describe.

    Raises
    ------
    ConfigError
        If the conda runner is asked for and no environment is configured.
    """
    return Site(
        apptainer=settings.apptainer,
        setup=settings.setup,
        binds=settings.binds,
        scratch=settings.scratch,
        conda=_conda(settings) if runner is RunnerKind.CONDA else None,
        srun_mpi=settings.srun_mpi,
    )


def _conda(settings: Settings) -> CondaRunner:
    if settings.conda_sh is None or settings.conda_env is None:
        raise ConfigError(
            "the conda runner has no environment",
            "Set conda: {sh: …/conda.sh, env: NAME} in the tool's section of the configuration.",
        )
    return CondaRunner(str(settings.conda_sh), settings.conda_env)

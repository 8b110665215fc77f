"""The console scripts of single tools: the general verbs with the tool filled in."""

from __future__ import annotations

import sys

from valska.cli import main


def bayeseor_prepare() -> None:
    """Run ``valska bundle bayeseor``."""
    _prepare("bayeseor")


def bayeseor_submit() -> None:
    """Run ``valska submit``, for bundles of BayesEoR only."""
    _submit("bayeseor")


def bayeseor_sweep() -> None:
    """Run ``valska sweep bayeseor``."""
    _sweep("bayeseor")


def pyuvsim_prepare() -> None:
    """Run ``valska bundle pyuvsim``."""
    _prepare("pyuvsim")


def pyuvsim_submit() -> None:
    """Run ``valska submit``, for bundles of pyuvsim only."""
    _submit("pyuvsim")


def pyuvsim_sweep() -> None:
    """Run ``valska sweep pyuvsim``."""
    _sweep("pyuvsim")


def _prepare(tool: str) -> None:
    main(["bundle", tool, *sys.argv[1:]], prog_name="valska")


def _submit(tool: str) -> None:
    main(["submit", "--tool", tool, *sys.argv[1:]], prog_name="valska")


def _sweep(tool: str) -> None:
    main(["sweep", tool, *sys.argv[1:]], prog_name="valska")

"""The command line. A verb parses, calls one function of the core, and prints."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

import click

from valska.cli.lazy import LazyGroup
from valska.cli.state import State, add_global_options, state

_VERBS = {
    "bundle": "Make a run's bundle: everything it needs, sealed, in one directory.",
    "sweep": "Make many runs that differ in some values: one directory, stored once.",
    "submit": "Send a bundle's stages to Slurm, or run them here.",
    "status": "Say what the scheduler and the jobs' own records know of a bundle or sweep.",
    "list": "List the runs and sweeps below a root, and what became of them.",
    "cancel": "End a bundle's jobs, giving them time to write their records.",
    "verify": "Check every file of a bundle, sweep or archive against its manifest.",
    "archive": "Pack a bundle or sweep into one file that can be checked and run anywhere.",
    "sign": "Sign an archive or a receipt with an SSH key.",
    "unpack": "Unpack an archive into a new directory, checking everything on the way.",
    "show": "Print what a bundle will run, down to the exact command.",
    "plot": "Draw what a bundle's run wrote, as a PNG.",
    "report": "Print, tabulate and draw what runs and sweeps found.",
    "compare": "Say how two sweeps differ, point by point.",
    "diff": "Say what two bundles do not have in common: intent, and outputs.",
    "reproduce": "Make a bundle again, run it, and say whether it gives the same answer.",
    "build": "Build a container image from its pinned definition.",
    "lock": "Pin a definition: its base by digest, its requirements by hash.",
    "fetch": "Pack what a build or a run needs into one file, for a place without a network.",
    "load": "Take such a file into the image store of this machine.",
    "image": "List, check, move and clear away the container images in the store.",
    "clean": "Clear away logs, leftovers, matrices, earlier attempts or whole runs.",
    "templates": "List, print or copy the templates of the tools.",
    "tools": "List the tools that valska can run.",
    "config": "Print the settings that hold here, and where each is from.",
    "doctor": "Check what this machine has, and say what to do about the rest.",
    "completion": "Print the code that completes valska's commands in a shell.",
}


class Verbs(LazyGroup):
    """The group of all verbs."""

    verbs = _VERBS

    def module(self, verb: str) -> str:
        """Return the name of a verb's module; one called ``list`` would stand for the type here."""
        return {"list": "listing"}.get(verb, verb)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line, and leave with its exit code."""
        options: MutableMapping[str, Any] = {"obj": State(), **extra}
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **options)
        from valska.cli.errors import guarded, terminate

        def run() -> Any:
            return super(Verbs, self).main(args, prog_name, complete_var, False, **options)

        # Start-up makes many objects that stay: looking for garbage among them only takes time.
        gc.set_threshold(100_000)
        # A terminated command tidies up as an interrupted one does.
        signal.signal(signal.SIGTERM, terminate)
        code = guarded(run, options["obj"])
        # What is left goes when the process ends: looking for garbage in it only takes time.
        gc.freeze()
        sys.exit(code)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
def main() -> None:
    """Make, run and prove reproducible science runs on HPC clusters.

    A run is one bundle: a directory that describes itself and runs by itself.

    \b
      valska bundle pyuvsim obs.yaml -o bundle    resolve, stage, render, seal
      valska submit bundle                        to Slurm, or to this machine
      valska status bundle                        what happened
      valska verify bundle                        is it still what was made?
    """  # noqa: D301
    from valska.cli.output import set_up_logging

    set_up_logging(state().verbosity)


add_global_options(main)

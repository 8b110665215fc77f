"""The floor of building an image: ``apptainer build`` of the same definition, in the same way."""

import os
import subprocess
import sys
from pathlib import Path

from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
from valska.external_tools.core.images.building.environment import build_environment, workspace
from valska.external_tools.core.images.definition import rebase
from valska.external_tools.core.images.store import ImageStore


def main(definition: Path, base: str, sif: Path) -> None:
    """Build it."""
    draft = draft_build(
        BuildRequest(definition=definition, store=ImageStore(sif.parent), base=base)
    )
    with workspace(os.environ) as work:
        path = work / definition.name
        source = draft.base
        path.write_text(rebase(draft.definition, source.bootstrap, source.source, source.labels))
        command = draft.command(sif, path, work / "tmp")
        subprocess.run(
            [word for word in command if word != "--sandbox"],
            cwd=definition.parent,
            env=build_environment(os.environ, work, draft.ca_bundle, str(draft.epoch)),
            check=True,
        )


main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

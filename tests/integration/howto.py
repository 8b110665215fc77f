"""The commands of a how-to page, as a reader types them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from account import ROOT

DRAWS = ("valska report", "valska plot")


class Page:
    """A page of docs/how-to, read and tried in the directory of a user."""

    def __init__(self, name, user):
        text = (ROOT / "docs/how-to" / f"{name}.md").read_text(encoding="utf-8")
        self.user = user
        self.blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.done = 0

    def go_on(self, until):
        """Run the commands up to, and with, the block that has these words; return what it said."""
        said = ""
        while until not in said:
            assert self.done < len(self.blocks), f"no block with {until!r} is left"
            said = self.blocks[self.done]
            self.done += 1
            output = self._run(said)
        return output

    def _run(self, block):
        """Run a block; what draws needs packages that only whoever runs the tests has."""
        argv = ("bash", "-euo", "pipefail", "-c", block)
        if not block.startswith(DRAWS):
            return self.user.run(*argv, timeout=600).stdout
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, **dict(self.user.env)}
        done = subprocess.run(
            argv, cwd=self.user.work, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

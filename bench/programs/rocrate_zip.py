"""A directory packed by rocrate: its files described, and all in a zip."""

import sys

from rocrate.rocrate import ROCrate

ROCrate(sys.argv[1], init=True).write_zip(sys.argv[2])

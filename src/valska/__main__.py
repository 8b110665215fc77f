"""Run the command line: ``python -m valska``."""

from valska.cli import main

if __name__ == "__main__":
    main(prog_name="valska")

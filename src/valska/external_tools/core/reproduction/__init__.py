"""Reproduction: a sealed bundle made and run again, and compared with what it was."""

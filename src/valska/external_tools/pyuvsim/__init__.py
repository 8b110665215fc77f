"""pyuvsim as a tool of valska."""

from valska.external_tools.pyuvsim.plan import TOOL

__all__ = ["TOOL"]

"""BayesEoR as a tool of valska."""

from valska.external_tools.bayeseor.plan import TOOL

__all__ = ["TOOL"]

"""Sources (name -> rows in memory), ops (pure functions of a batch), and the pipeline between the rows and the step."""

from fdl.data.splits import Data, Op, Request, Splits

__all__ = ["Data", "Op", "Request", "Splits"]

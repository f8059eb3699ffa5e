"""Sources (name -> rows in memory), ops (pure functions of a batch), and the pipeline between the rows and the step."""

from fdl.data.splits import Augmentation, Data, Facts, HostOp, Op, Request, Splits

__all__ = ["Augmentation", "Data", "Facts", "HostOp", "Op", "Request", "Splits"]

"""The meanings a model's outputs can have."""

from fdl.tasks.anomaly import Reconstruction
from fdl.tasks.classification import Classification
from fdl.tasks.language import LanguageModel
from fdl.tasks.multilabel import MultiLabel
from fdl.tasks.ordinal import Ordinal
from fdl.tasks.rare import RareClass
from fdl.tasks.ratings import Ratings
from fdl.tasks.recommendation import Recommendation
from fdl.tasks.regression import Regression
from fdl.tasks.task import MetricStyle, Panel, Task, View

__all__ = [
    "Classification", "LanguageModel", "MetricStyle", "MultiLabel", "Ordinal", "Panel", "RareClass", "Ratings", "Recommendation",
    "Reconstruction", "Regression", "Task", "View",
]  # fmt: skip

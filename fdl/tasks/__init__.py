"""The meanings a model's outputs can have."""

from fdl.tasks.classification import Classification
from fdl.tasks.language import LanguageModel
from fdl.tasks.multi_view import MultiView
from fdl.tasks.regression import Regression
from fdl.tasks.task import MetricStyle, Panel, Task, View

__all__ = ["Classification", "LanguageModel", "MetricStyle", "MultiView", "Panel", "Regression", "Task", "View"]

"""The meanings a model's outputs can have."""

from fdl.tasks.classification import Classification
from fdl.tasks.forecast import Forecast
from fdl.tasks.language import LanguageModel
from fdl.tasks.regression import Regression
from fdl.tasks.speech import SpeechClassification
from fdl.tasks.summarization import Summarization
from fdl.tasks.task import MetricStyle, Panel, Task, View

__all__ = [
    "Classification",
    "Forecast",
    "LanguageModel",
    "MetricStyle",
    "Panel",
    "Regression",
    "SpeechClassification",
    "Summarization",
    "Task",
    "View",
]

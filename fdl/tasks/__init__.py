"""The meanings a model's outputs can have."""

from fdl.tasks.classification import Classification
from fdl.tasks.language import LanguageModel
from fdl.tasks.regression import Regression
from fdl.tasks.task import MetricStyle, Panel, Task, View
from fdl.tasks.text_classification import TextClassification
from fdl.tasks.translation import Translation, TranslationByBleu

__all__ = [
    "Classification", "LanguageModel", "MetricStyle", "Panel", "Regression", "Task", "TextClassification", "Translation",
    "TranslationByBleu", "View",
]  # fmt: skip

"""The meanings a model's outputs can have."""

from typing import TYPE_CHECKING

from fdl.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from fdl.tasks.anomaly import AnomalyDetection
    from fdl.tasks.classification import Classification
    from fdl.tasks.clustering import Clustering
    from fdl.tasks.detection import Detection
    from fdl.tasks.forecast import Forecast
    from fdl.tasks.language import LanguageModel
    from fdl.tasks.multi_view import MultiView
    from fdl.tasks.multilabel import MultiLabel
    from fdl.tasks.ordinal import Ordinal
    from fdl.tasks.rare import RareClass
    from fdl.tasks.ratings import Ratings
    from fdl.tasks.recommendation import Recommendation
    from fdl.tasks.reconstruction import Reconstruction, Variational
    from fdl.tasks.regression import Regression
    from fdl.tasks.segmentation import Segmentation
    from fdl.tasks.series_anomaly import SeriesAnomalies
    from fdl.tasks.speech import SpeechClassification
    from fdl.tasks.summarization import Summarization
    from fdl.tasks.task import MetricStyle, Panel, Task, View
    from fdl.tasks.text_classification import TextClassification
    from fdl.tasks.translation import Translation, TranslationByBleu
    from fdl.tasks.video import VideoClassification

__all__ = [
    "AnomalyDetection",
    "Classification",
    "Clustering",
    "Detection",
    "Forecast",
    "LanguageModel",
    "MetricStyle",
    "MultiLabel",
    "MultiView",
    "Ordinal",
    "Panel",
    "RareClass",
    "Ratings",
    "Recommendation",
    "Reconstruction",
    "Regression",
    "Segmentation",
    "SeriesAnomalies",
    "SpeechClassification",
    "Summarization",
    "Task",
    "TextClassification",
    "Translation",
    "TranslationByBleu",
    "Variational",
    "VideoClassification",
    "View",
]

__getattr__ = lazy_exports(__name__, __file__)

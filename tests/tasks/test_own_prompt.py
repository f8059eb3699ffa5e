"""A language model's own prompt over a text of the user's: a run must not end in an error at its first sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fdl.data import Facts
from fdl.tasks import LanguageModel


@pytest.mark.parametrize(
    ("vocabulary", "wanted"), [("\n:EMORa", "ROMEO:"), ("aR:", "R:"), ("xyz", "x")], ids=["all", "some", "none"]
)
def test_characters_that_the_text_lacks_are_left_out(vocabulary: str, wanted: str) -> None:
    view = SimpleNamespace(splits=SimpleNamespace(facts=Facts(vocabulary=tuple(vocabulary))))
    assert LanguageModel(prompt="ROMEO:").own_prompt(cast(Any, view)) == wanted

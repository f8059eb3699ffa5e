"""shakespeare_lstm, shrunk: random windows, dropout, clipping, samples on the way."""

import dataclasses

from experiments.shakespeare_lstm import experiment as real
from fdl.data import Facts, Request, Splits
from fdl.data.formats import characters, forms
from fdl.data.standins import standin
from fdl.tasks import LanguageModel


def text(request: Request) -> Splits:
    parts = characters.split(standin.play(30_000))
    known = characters.vocabulary(*parts)
    train = characters.chunks(characters.encode(parts[0], known), 24)
    validation, test = (characters.windows(characters.encode(part, known), 48) for part in parts[1:])
    return forms.splits(
        "text", "builtin", "drawn", train, test, validation=validation, facts=Facts(vocabulary=tuple(known))
    )


@dataclasses.dataclass(frozen=True)
class Brief(LanguageModel):
    """The same without panels: the report has its own curves, and is written in the same way."""

    def panels(self, view):
        return []


def experiment():
    whole = real()
    return dataclasses.replace(
        whole, data=dataclasses.replace(whole.data, load=text, feed="numpy"),
        model=whole.model.clone(vocabulary=len(text(Request()).facts.vocabulary), width=24),
        task=Brief(temperature=0.8, prompt="ROMEO:", sample_length=20), batch_size=32, eval_batch_size=16,
        steps=240, log_every=7, eval_every=40, save_every=15, sample_every=120,
    )  # fmt: skip

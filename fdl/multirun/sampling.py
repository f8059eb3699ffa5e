"""What Optuna's samplers and pruners say of the trials so far.

They work on a copy in memory, made anew for each question. So an answer depends only on the seed, the trial's number and
the trials so far, not on who asks, how often, or in which process; and no half-written answer is ever on the disk.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fdl.experiment.overrides import show
from fdl.experiment.tuning import Choice, Int, Search, Uniform
from fdl.types import UserError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY = "sweep"
STARTUP = 5
"""Trials drawn at random before TPE has enough to go by (Optuna's own 10 are for sweeps of hundreds)."""
FIRST_RUNG, REDUCTION = 12, 3
"""Successive halving, in percent of a run: a third continues at 12 % and at 36 %; at 108 % nothing is left to end."""


@dataclasses.dataclass(frozen=True)
class SearchRules:
    """What decides the next trial, and which one is ended early."""

    search: Search
    better: Literal["max", "min"]
    seed: int


def import_optuna() -> Any:
    """Import Optuna, silenced.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"--mode=sweep needs Optuna ({error}): pip install 'optuna>=5.0,<5.1'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def suggest(rules: SearchRules, past: list[FrozenTrial]) -> dict[str, Any]:
    """Suggest the values of the trial after these: the setting's name -> number (to four digits), or a choice's text."""
    asked, values = _copy(rules, past).ask(distributions(rules.search)), {}
    for name, where in rules.search.space.items():
        value = asked.params[name]
        if not isinstance(where, Choice | Int):
            value = min(max(float(f"{value:.4g}"), float(where.low)), float(where.high))
        values[name] = value
    return values


def rungs(rules: SearchRules) -> tuple[int, ...]:
    """List the percentages of a run at which a trial is compared with others."""
    first = {"asha": FIRST_RUNG, "hyperband": FIRST_RUNG // REDUCTION, "none": 100}[rules.search.pruner]
    return tuple(itertools.takewhile(lambda rung: rung < 100, (first * REDUCTION**i for i in itertools.count())))


def should_prune(rules: SearchRules, found: list[FrozenTrial], number: int) -> tuple[bool, dict[str, Any]]:
    """Decide whether a trial is pruned at its last report; return also the marks that later trials are compared with."""
    import optuna

    study = _copy(rules, found)
    own = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    pruned = optuna.trial.Trial(study, own).should_prune()
    return bool(pruned), study.trials[number].system_attrs


def importances(rules: SearchRules, found: list[FrozenTrial]) -> dict[str, float]:
    """Estimate the share of the variance over the complete trials that each setting explains.

    Functional ANOVA over a random forest (Hutter et al. 2014).
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(_copy(rules, found), evaluator=evaluator))


def distributions(search: Search) -> dict[str, Any]:
    """Translate the search space to Optuna's classes."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, where in search.space.items():
        if isinstance(where, Choice):
            found[name] = CategoricalDistribution([show(value) for value in where.values])
        elif isinstance(where, Int):
            found[name] = IntDistribution(int(where.low), int(where.high), log=where.log)
        else:
            found[name] = FloatDistribution(where.low, where.high, log=not isinstance(where, Uniform))
    return found


def _copy(rules: SearchRules, past: list[FrozenTrial]) -> optuna.Study:
    import optuna
    from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([rules.seed, len(past)]).generate_state(1)[0])
    tpe = rules.search.sampler == "tpe"
    sampler: Any = TPESampler(seed=seed, n_startup_trials=STARTUP) if tpe else RandomSampler(seed)
    pruner: Any = {
        "asha": SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=REDUCTION),
        "hyperband": HyperbandPruner(FIRST_RUNG // REDUCTION, 100, REDUCTION),
        "none": NopPruner(),
    }[rules.search.pruner]
    direction: Literal["maximize", "minimize"] = "maximize" if rules.better == "max" else "minimize"
    study = optuna.create_study(study_name=STUDY, sampler=sampler, pruner=pruner, direction=direction)
    study.add_trials(past)
    return study

"""A seeded sampler whose draws depend on the trial's number, so that a resumed study does not repeat them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class NumberSeededSampler(BaseSampler):
    """Uses for every trial a new sampler, seeded by (seed, trial number).

    A seeded Optuna sampler restarts its random stream in every process. After a resume it suggests the first points
    again, and in two processes that share a study the same points. Here the suggestion is a function of the seed, the
    trial's number and the finished trials only.

    Args:
        make: builds a sampler with a seed.
        seed: the study's seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self.current = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        state = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self.current = self.make(int(state[0]))
        self.current.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Delegate to the sampler."""
        return self.current.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Delegate to the sampler."""
        return self.current.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Delegate to the sampler."""
        return self.current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Delegate to the sampler."""
        self.current.after_trial(study, trial, state, values)

"""SAM-One (GraphSAM paper, section 4.1): eps_t = eps_0 for all t, the perturbation gradient of the first step.

It is a control: how much of SAM's gain remains if the perturbation is never updated?
"""

from __future__ import annotations

from molsam.optim.anchored import Anchored


class SAMOne(Anchored):
    """SAM that keeps the first step's eps; one pass per step, and an extra one at the first."""

    @property
    def period(self) -> int:
        """0: the whole training is one period."""
        return 0

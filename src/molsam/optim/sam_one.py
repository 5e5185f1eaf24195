"""SAM-One: GraphSAM paper, section 4.1: eps_t = eps_0 for all t, the perturbation gradient of the first step.

A control: how much of SAM's gain does a perturbation keep that is never renewed?
"""

from __future__ import annotations

from molsam.optim.anchored import Anchored


class SAMOne(Anchored):
    """SAM with the first step's eps for ever; one pass a step, and one more in the first."""

    @property
    def period(self) -> int:
        """The whole training is one."""
        return 0

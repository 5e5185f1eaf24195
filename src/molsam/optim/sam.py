"""SAM: Foret, Kleiner, Mobahi and Neyshabur, Sharpness-Aware Minimization for Efficiently Improving
Generalization, ICLR 2021; GraphSAM paper, equation 2. One step:

    eps   = grad L(theta)
    omega = grad L(theta + rho eps / norm(eps))
    theta = base step from theta with omega

The authors' code adds nothing to the norm; many ports add 1e-12 to it.
"""

from __future__ import annotations

from molsam.optim.base import Closure, Gradients, Optimizer, Pass


class SAM(Optimizer):
    """Sharpness-aware minimization; two passes per step. rho is 0.05 in both papers."""

    def gradients(self, closure: Closure) -> Gradients:
        """Return eps at theta, and omega at the displaced weights."""
        return self.ascend(closure, self.evaluate(closure))

    def ascend(self, closure: Closure, clean: Pass) -> Gradients:
        """Make the second pass, given the first one: omega = grad L(theta + rho eps / norm(eps))."""
        with self.perturbed(clean.gradient, clean.norm):
            omega = self.evaluate(closure)
        return Gradients(clean.gradient, clean.norm, omega.gradient, omega.norm)

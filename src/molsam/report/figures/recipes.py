"""The figures of the paper: how each is drawn, from which models and datasets, and how to train their runs.

If the paper does not name a dataset, BBBP is used; for its "three datasets" Tox21, Sider and ClinTox.
"""

from __future__ import annotations

from molsam.report.figures import (
    attention,
    bars,
    consistency,
    curves,
    gradients,
    landscape,
    schematic,
    sensitivity,
    tradeoff,
)
from molsam.report.figures.drawing import Recipe

BOTH = ("grover", "compt")
THREE = ("tox21", "sider", "clintox")
BBBP = ("bbbp",)
# Only the landscape of the last epoch, without the Hessian.
LANDSCAPE_ALONE = tuple(
    f"diagnostics.sharpness.{setting}" for setting in ("every=1000000", "eigenvalues=0", "trace_samples=0")
)

RECIPES = {
    "1": Recipe(
        bars.strategies, "A model under different training strategies", ("grover",), ("bbbp", *THREE[:2]), sweep="fig1"
    ),
    "2": Recipe(
        landscape.one_dimensional,
        "Loss landscape along random directions",
        ("grover",),
        BBBP,
        make=("optimizer=adam,sam,graphsam", "diagnostics=sharpness", *LANDSCAPE_ALONE),
    ),
    "3a": Recipe(gradients.changes, "Change of SAM's two gradients from step to step", BOTH, BBBP, sweep="fig3"),
    "3b": Recipe(bars.four_optimizers, "Adam, SAM and SAM with old gradients", BOTH, BBBP, sweep="fig3"),
    "3c": Recipe(consistency.consistent_pairs, "Consistent pairs of gradients", BOTH, BBBP, sweep="fig3"),
    "4": Recipe(schematic.draw, "A SAM step and a GraphSAM step"),
    "5": Recipe(curves.losses, "Training and test loss", BOTH, BBBP, sweep="fig3"),
    "6": Recipe(tradeoff.time_and_score, "GraphSAM-K: time against test metric", BOTH, BBBP, sweep="fig6"),
    "7a": Recipe(sensitivity.initial_rho, "Effect of the initial rho", ("compt",), BBBP, sweep="fig7"),
    "7b": Recipe(sensitivity.rho_lambda, "Effect of lambda", ("compt",), BBBP, sweep="fig7"),
    "8": Recipe(
        gradients.changes,
        "Change of SAM's two gradients, other datasets",
        ("grover",),
        THREE,
        make=("optimizer=sam", "diagnostics=gradients"),
    ),
    "9": Recipe(
        gradients.norms,
        "Norms of SAM's two gradients",
        ("grover",),
        THREE,
        make=("optimizer=sam,graphsam_release", "diagnostics=gradients"),
    ),
    "10": Recipe(
        attention.maps,
        "Attention maps and their entropy",
        ("compt",),
        BBBP,
        make=("optimizer=adam,graphsam,sam", "callbacks=attention"),
    ),
}

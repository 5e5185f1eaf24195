"""What each atom contributes to a prediction, and a picture of it.

Source: gradient x input (Shrikumar and others 2016); the picture is RDKit's similarity map (Riniker and Landrum 2013).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.molecule import parse
from molsam.chem.standardize import standardize
from molsam.data.batch import MoleculeBatch
from molsam.data.featurize import featurized
from molsam.data.graph import colours_of
from molsam.errors import ConfigError, DataError
from molsam.wiring.trained import Trained


@dataclass(frozen=True)
class Explanation:
    """Of one molecule of n atoms."""

    mol: Any
    """the RDKit molecule that the model reads: standardized, if the run's molecules are"""
    values: dict[str, float]
    """the prediction of each task, as `molsam predict` gives it; of several classes the probability of the likeliest"""
    atoms: dict[str, np.ndarray]
    """float64 [n] of each task, atoms in the order of `mol`: shares of the logit, or of the value in its own unit"""
    classes: dict[str, str] = field(default_factory=dict)
    """of each task of several classes, the likeliest one, whose logit was split"""


def explain(trained: Trained, smiles: str) -> Explanation:
    """Split each task's output among the atoms by gradient x input; a bond's share goes to its two atoms in halves.

    Raises DataError if the SMILES is no molecule, or the model cannot take it.
    """
    (row,) = featurized([smiles], trained.work)
    values, (reason,) = trained.predict([row])
    if reason:
        raise DataError(f"{smiles} cannot be explained: {reason}")
    batch, nodes, edges = apart(trained.batch([row]))
    logits = trained.model(batch).logits.mean(0)[0]
    found: dict[str, np.ndarray] = {}
    told: dict[str, float] = {}
    classes: dict[str, str] = {}
    for task, name in enumerate(trained.task_names):
        place = task
        if trained.task == "multiclass":
            likeliest = int(values[0, task].argmax())
            place = task * values.shape[2] + likeliest
            classes[name] = trained.class_names[task][likeliest]
        told[name] = float(values[0, task].max())
        slopes = torch.autograd.grad(logits[place], [nodes, edges], retain_graph=True, allow_unused=True)
        of_atoms, of_bonds = (
            (x.detach() * slope).sum(1).double() if slope is not None else x.new_zeros(len(x), dtype=torch.float64)
            for x, slope in zip((nodes, edges), slopes, strict=True)
        )
        half = of_bonds / 2
        shares = of_atoms.index_add(0, batch.src, half).index_add(0, batch.dst, half).cpu().numpy()
        scale = float(trained.scaler.std[task]) if trained.task == "regression" else 1.0
        found[name] = shares * scale
    mol = standardize(parse(smiles), trained.work.standardize)
    return Explanation(mol, told, found, classes)


def attention(trained: Trained, smiles: str) -> Explanation:
    """Return the attention that each atom gets from a transformer, 1 in sum, the same for all tasks.

    Attention says where a model looks, and not whether an atom raises or lowers the output. Raises ConfigError for a
    model that has none between atoms, and DataError as `explain` does.
    """
    look: Any = getattr(trained.model, "atom_attention", None)
    if look is None:
        raise ConfigError(
            f"{type(trained.model).__name__} has no attention; leave --by "
            "attention out, or use a run of compt or grover."
        )
    (row,) = featurized([smiles], trained.work)
    if row.reason:
        raise DataError(f"{smiles} cannot be explained: {row.reason}")
    found = look(trained.batch([row])).double().cpu().numpy()
    explained = explain(trained, smiles)
    return replace(explained, atoms=dict.fromkeys(trained.task_names, found))


def apart(batch: MoleculeBatch) -> tuple[MoleculeBatch, Tensor, Tensor]:
    """Return the batch with its own row of features for each atom and bond, and these rows, which take gradients."""
    nodes, edges = batch.nodes.detach().requires_grad_(), batch.edges.detach().requires_grad_()
    src, dst = batch.src, batch.dst
    types = torch.arange(len(nodes), device=nodes.device), torch.arange(len(edges), device=edges.device)
    # No two are alike any more, so that no model computes one of them for another.
    kinds = None if batch.colours is None else colours_of(types[0], batch.neighbour_offsets, src, dst, types[1])
    own: dict[str, Any] = {
        "node_table": nodes,
        "node_type": types[0],
        "edge_table": edges,
        "columns": lambda: (src, dst, types[1]),
    }
    return replace(batch, **own, colours=kinds, origin=None), nodes, edges


def picture(explanation: Explanation, task: str) -> str:
    """Return an SVG of the molecule: green where atoms raise the output, purple where they lower it."""
    from rdkit.Chem import Draw
    from rdkit.Chem.Draw import SimilarityMaps

    canvas = Draw.MolDraw2DSVG(400, 400)
    SimilarityMaps.GetSimilarityMapFromWeights(
        explanation.mol, explanation.atoms[task].tolist(), draw2d=canvas, colorMap="PiYG"
    )
    canvas.FinishDrawing()
    return canvas.GetDrawingText()

"""What each atom contributes to a prediction, and a picture of it.

Source: gradient x input (Shrikumar and others 2016); the picture is RDKit's similarity map (Riniker and Landrum 2013).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.data.batch import MoleculeBatch
from molsam.data.featurize import featurized
from molsam.data.graph import colours_of
from molsam.errors import DataError
from molsam.wiring.trained import Trained


@dataclass(frozen=True)
class Explanation:
    """Of one molecule of n atoms."""

    smiles: str
    values: dict[str, float]
    """the prediction of each task, as `molsam predict` gives it"""
    atoms: dict[str, np.ndarray]
    """float64 [n] of each task, atoms in the order of the SMILES: shares of the logit, or of the value in its own unit"""


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
    for task, name in enumerate(trained.task_names):
        slopes = torch.autograd.grad(logits[task], [nodes, edges], retain_graph=True, allow_unused=True)
        of_atoms, of_bonds = (
            (x.detach() * slope).sum(1).double() if slope is not None else x.new_zeros(len(x), dtype=torch.float64)
            for x, slope in zip((nodes, edges), slopes, strict=True)
        )
        half = of_bonds / 2
        shares = of_atoms.index_add(0, batch.src, half).index_add(0, batch.dst, half).cpu().numpy()
        scale = float(trained.scaler.std[task]) if trained.task == "regression" else 1.0
        found[name] = shares * scale
    return Explanation(smiles, dict(zip(trained.task_names, values[0].tolist(), strict=True)), found)


def apart(batch: MoleculeBatch) -> tuple[MoleculeBatch, Tensor, Tensor]:
    """The batch with a row of features of its own for each atom and bond, and these rows, which take gradients."""
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
    return replace(batch, **own, colours=kinds), nodes, edges


def picture(explanation: Explanation, task: str) -> str:
    """An SVG of the molecule: green where atoms raise the output, purple where they lower it."""
    from rdkit.Chem import Draw
    from rdkit.Chem.Draw import SimilarityMaps

    from molsam.chem.molecule import parse

    mol = parse(explanation.smiles)
    canvas = Draw.MolDraw2DSVG(400, 400)
    SimilarityMaps.GetSimilarityMapFromWeights(mol, explanation.atoms[task].tolist(), draw2d=canvas, colorMap="PiYG")
    canvas.FinishDrawing()
    return canvas.GetDrawingText()

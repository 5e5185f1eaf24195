"""Figure 10: CoMPT's attention over the atoms of a molecule, beside the molecule."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

OPTIMIZERS = ("adam", "graphsam", "sam")
FILE = "attention.npz"


def maps(request: Request) -> Drawing:
    """Draw the attention of one test molecule, mean over layers and heads, with the mean entropies of the test set."""
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(2 * len(pairs), 2, height=1.62)
    numbers: dict[str, Any] = {}
    for place, (model, dataset) in enumerate(pairs):
        groups = _groups(request, model, dataset)
        stored = _same_molecule(groups)
        own = axes[2 * place : 2 * place + 2].ravel()
        smiles = str(next(iter(stored.values()))["smiles"])
        _molecule(own[0], smiles, f"{label(model)}, {label(dataset)}")
        _heat_maps(own[1:], stored)
        entry = {name: _entropies(name, group, model, dataset) for name, group in groups.items()}
        for ax, (name, row) in zip(own[1:], entry.items(), strict=True):
            stated = "" if row["paper"] is None else f"; paper {row['paper']:.4f}"
            ax.set_title(f"{label(name)}\n{row['nats']['mean']:.3f} nats{stated}", fontsize=6.5)
        numbers[f"{model}/{dataset}"] = {"smiles": smiles, **entry}
    return Drawing(
        figure,
        numbers,
        "Entropy -sum p ln p per row of the attention, mean over atoms, heads, layers and test molecules; the JSON "
        "beside the figure has bits too (the paper does not name the base).",
    )


def _groups(request: Request, model: str, dataset: str) -> dict[str, list[StoredRun]]:
    runs = select.panel([run for run in request.runs if (run.folder / FILE).exists()], model, dataset)
    groups = {name: select.series(runs, name) for name in OPTIMIZERS}
    missing = [name for name, group in groups.items() if not group]
    if missing:
        raise MissingRuns(f"{label(model)} on {label(dataset)} lacks runs with {FILE} under {', '.join(missing)}")
    return groups


def load(run: StoredRun) -> dict[str, np.ndarray]:
    """Return the arrays of a run's attention.npz (see molsam.diagnostics.attention)."""
    with np.load(run.folder / FILE, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _same_molecule(groups: dict[str, list[StoredRun]]) -> dict[str, dict[str, np.ndarray]]:
    common = set.intersection(*({run.pair for run in group} for group in groups.values()))
    if not common:
        raise MissingRuns("attention maps of one molecule lack runs of equal seed and fold under every optimizer")
    return {name: load(next(r for r in group if r.pair == min(common))) for name, group in groups.items()}


def _molecule(ax: Axes, smiles: str, title: str) -> None:
    from matplotlib.image import imread
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DCairo(520, 440)
    options: Any = drawer.drawOptions()
    options.addAtomIndices, options.annotationFontScale, options.padding = True, 0.8, 0.03
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, Chem.MolFromSmiles(smiles))
    drawer.FinishDrawing()
    ax.imshow(imread(io.BytesIO(drawer.GetDrawingText())))
    ax.set_axis_off()
    ax.set_title(title, loc="left")


def _heat_maps(axes: Any, stored: dict[str, dict[str, np.ndarray]]) -> None:
    matrices = [arrays["map"] for arrays in stored.values()]
    norm = Normalize(0, float(max(np.percentile(m, 99.5) for m in matrices)))
    for ax, matrix in zip(axes, matrices, strict=True):
        image = ax.imshow(matrix, cmap="cividis", norm=norm, interpolation="nearest")
        ax.set(xlabel="atom", ylabel="atom")
        ax.spines[:].set_visible(False)
    axes[0].figure.colorbar(image, ax=axes[-1], fraction=0.05, pad=0.03).ax.tick_params(labelsize=5.5)


def _entropies(name: str, group: list[StoredRun], model: str, dataset: str) -> dict[str, Any]:
    nats = [float(load(run)["entropy"]) for run in group]
    return {
        "nats": select.mean_std(nats),
        "bits": select.mean_std(value / np.log(2) for value in nats),
        "paper": paper.stated(table="text", model=model, optimizer=name, dataset=dataset, metric="attention_entropy"),
    }

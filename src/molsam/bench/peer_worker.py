"""Worker that trains another package's model as fast as that package can; it runs in the peers' environment.

Its argument is a JSON object: peer, model, batch, threads, device, and `data`, a file with the training molecules
(smiles, targets, task). It prints "ready", then answers every line of its input, a number of seconds, with graphs/s.
Molecules are featurized before the first round, as in molsam.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

Step = Callable[[Any], int]


def chemprop(smiles: list[str], targets: list[list[float]], task: str, batch: int, device: str) -> tuple[Any, Step]:
    """Return batches and step of chemprop's D-MPNN: width 300, depth 3, mean over atoms, head with one hidden layer of
    300."""
    import numpy as np
    from chemprop import data, models, nn

    points = [data.MoleculeDatapoint.from_smi(s, np.array(y)) for s, y in zip(smiles, targets, strict=True)]
    dataset = data.MoleculeDataset(points)
    dataset.cache = True
    head = nn.RegressionFFN if task == "regression" else nn.BinaryClassificationFFN
    model = models.MPNN(nn.BondMessagePassing(d_h=300, depth=3), nn.MeanAggregation(), head(n_tasks=len(targets[0])))
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(found: Any) -> int:
        graphs, *rest = found
        graphs.to(device)
        there: list[Any] = [None if one is None else one.to(device) for one in rest]
        atoms, molecules, wanted, weights, below, above = there
        optimizer.zero_grad()
        output = model.predictor.train_step(model.fingerprint(graphs, atoms, molecules))
        mask = wanted.isfinite()
        loss = model.criterion(output, wanted.nan_to_num(nan=0.0), mask, weights, below, above)
        loss.backward()
        optimizer.step()
        float(loss.detach())
        return len(wanted)

    return data.build_dataloader(dataset, batch_size=batch, drop_last=True), step


def dgllife(name: str, smiles: list[str], targets: list[list[float]], task: str, batch: int) -> tuple[Any, Step]:
    """Return batches and step of dgllife's GCNPredictor or MPNNPredictor: defaults, canonical features, self loops."""
    import dgl
    from dgllife.model import GCNPredictor, MPNNPredictor
    from dgllife.utils import CanonicalAtomFeaturizer, CanonicalBondFeaturizer, smiles_to_bigraph

    atoms, bonds = CanonicalAtomFeaturizer(), CanonicalBondFeaturizer(self_loop=True)
    graphs = [smiles_to_bigraph(s, True, atoms, bonds) for s in smiles]
    known = ~torch.tensor(targets).isnan()
    items: Any = list(zip(graphs, torch.tensor(targets).nan_to_num(), known, strict=True))
    tasks = len(targets[0])
    if name == "gcn":
        model = GCNPredictor(atoms.feat_size(), n_tasks=tasks)
    else:
        model = MPNNPredictor(atoms.feat_size(), bonds.feat_size(), n_tasks=tasks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = {"regression": torch.nn.MSELoss, "classification": torch.nn.BCEWithLogitsLoss}
    criterion = losses[task](reduction="none")
    model.train()

    def collate(chosen: list[Any]) -> tuple[Any, Any, Any]:
        graphs, wanted, mask = zip(*chosen, strict=True)
        return dgl.batch(graphs), torch.stack(wanted), torch.stack(mask)

    def step(found: Any) -> int:
        graph, wanted, mask = found
        optimizer.zero_grad()
        if name == "gcn":
            output = model(graph, graph.ndata["h"])
        else:
            output = model(graph, graph.ndata["h"], graph.edata["e"])
        loss = (criterion(output, wanted) * mask).sum() / mask.sum()
        loss.backward()
        optimizer.step()
        float(loss.detach())
        return len(wanted)

    return DataLoader(items, batch_size=batch, shuffle=True, drop_last=True, collate_fn=collate), step


def batches(loader: Any) -> Iterator[Any]:
    """Yield the batches of all epochs."""
    while True:
        yield from loader


def main() -> None:
    """Train and answer until the input ends."""
    warnings.simplefilter("ignore")
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    answers, sys.stdout = sys.stdout, sys.stderr  # output of the package must not mix with the answers
    found = json.loads(Path(given["data"]).read_text(encoding="utf-8"))
    if given["peer"] == "chemprop":
        loader, step = chemprop(found["smiles"], found["targets"], found["task"], given["batch"], given["device"])
    else:
        loader, step = dgllife(given["model"], found["smiles"], found["targets"], found["task"], given["batch"])
    stream = batches(loader)
    for _ in range(3):
        step(next(stream))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        graphs, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < float(line):
            graphs += step(next(stream))
        print(graphs / spent, file=answers, flush=True)


if __name__ == "__main__":
    main()

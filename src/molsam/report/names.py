"""Display names of models, optimizers, datasets and metrics, for tables, figures and the dashboard."""

from __future__ import annotations

from molsam.config.metrics import display

LABELS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "sgd": "SGD",
    "sam": "SAM",
    "graphsam": "GraphSAM",
    "sam_one": "SAM-One",
    "sam_k": "SAM-k",
    "looksam": "LookSAM",
    "aesam": "AE-SAM",
    "rst": "RST",
    "asam": "ASAM",
    "esam": "ESAM",
    "gsam": "GSAM",
    "fsam": "Friendly-SAM",
    "sam_release": "SAM (release)",
    "graphsam_release": "GraphSAM (release)",
    "grover": "GROVER",
    "compt": "CoMPT",
    "cmpnn": "CMPNN",
    "dmpnn": "DMPNN",
    "mpnn": "MPNN",
    "gcn": "GCN",
    "resnet18": "ResNet-18",
    "forest": "Random forest",
    "bbbp": "BBBP",
    "tox21": "Tox21",
    "sider": "Sider",
    "clintox": "ClinTox",
    "esol": "ESOL",
    "lipophilicity": "Lipophilicity",
    "freesolv": "FreeSolv",
    "huuskonen": "Huuskonen",
    "bace": "BACE",
    "qm7": "QM7",
    "qm8": "QM8",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}


def label(name: str) -> str:
    """Return the display name; that of a metric is in its file, and an unknown name is returned unchanged."""
    return LABELS.get(name) or display(name)

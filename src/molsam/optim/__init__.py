"""Sharpness-aware optimizers around any `torch.optim` optimizer. Nothing here is specific to molecules."""

from molsam.optim.adam import Adam, AdamW
from molsam.optim.aesam import AESAM
from molsam.optim.asam import ASAM
from molsam.optim.base import Optimizer, StepEvent, StepRecord
from molsam.optim.esam import ESAM
from molsam.optim.fsam import FriendlySAM
from molsam.optim.graphsam import GraphSAM
from molsam.optim.graphsam_release import GraphSAMRelease
from molsam.optim.gsam import GSAM
from molsam.optim.looksam import LookSAM
from molsam.optim.plain import Plain
from molsam.optim.rst import RST
from molsam.optim.sam import SAM
from molsam.optim.sam_k import SAMk
from molsam.optim.sam_one import SAMOne
from molsam.optim.sam_release import SAMRelease

__all__ = [
    "AESAM",
    "ASAM",
    "ESAM",
    "GSAM",
    "RST",
    "SAM",
    "Adam",
    "AdamW",
    "FriendlySAM",
    "GraphSAM",
    "GraphSAMRelease",
    "LookSAM",
    "Optimizer",
    "Plain",
    "SAMOne",
    "SAMRelease",
    "SAMk",
    "StepEvent",
    "StepRecord",
]

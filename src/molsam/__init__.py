"""molsam: sharpness-aware training of molecular graph models (GraphSAM, ICLR 2024).

In a notebook: `molsam.train`, `molsam.load`, `molsam.results` (molsam.api). On the command line: `molsam --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molsam.api import MolsamError, Run, load, results, train

__version__ = "0.1.0"
__all__ = ["MolsamError", "Run", "__version__", "load", "results", "train"]


def __getattr__(name: str) -> Any:
    """Import the notebook's functions when one is first asked for: `molsam --help` needs none of them."""
    if name in __all__:
        from molsam import api

        return getattr(api, name)
    raise AttributeError(f"module 'molsam' has no attribute {name!r}")

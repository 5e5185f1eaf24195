"""`python train.py model=grover` is `molsam train model=grover` (see README.md)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# sweeps/ and conf/ are found from here whatever the working directory (conf/config.yaml reads it).
os.environ.setdefault("PROJECT_ROOT", str(Path(__file__).resolve().parent))

from molsam.commands.train import main  # holds @hydra.main, which tab completion looks for here

if __name__ == "__main__":
    sys.exit(main())

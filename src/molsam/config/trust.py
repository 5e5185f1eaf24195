"""Which code of the person's own the settings may name."""

from __future__ import annotations

import os
import sys

TRUSTED = "MOLSAM_TRUSTED"
"""Environment variable with the person's own packages, comma-separated, that a `_target_` may name too.

It is never read from settings: whoever wrote a stored run cannot set it.
"""


def trusted(address: str) -> bool:
    """Whether an address lies in a package that MOLSAM_TRUSTED names; if so, it may lie in the working directory."""
    package, _, rest = address.partition(".")
    names = {name.strip() for name in os.environ.get(TRUSTED, "").split(",")}
    if not rest or package not in names or package == "molsam":
        return False
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return True

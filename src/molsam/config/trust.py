"""The user's own packages that settings may name."""

from __future__ import annotations

import os
import sys

TRUSTED = "MOLSAM_TRUSTED"
"""Environment variable with the user's own packages, comma-separated, that a `_target_` may name too.

It is never read from settings, so the author of a stored run cannot set it.
"""


def trusted(address: str) -> bool:
    """Return whether an address is in a package that MOLSAM_TRUSTED names; it may then be in the working directory."""
    package, _, rest = address.partition(".")
    names = {name.strip() for name in os.environ.get(TRUSTED, "").split(",")}
    if not rest or package not in names or package == "molsam":
        return False
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return True

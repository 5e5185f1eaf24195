"""`python -m molsam`: the same as the command `molsam`."""

import sys

from molsam.commands.main import main

if __name__ == "__main__":
    sys.exit(main())

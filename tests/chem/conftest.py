"""Every featurizer, with a name that failing tests print."""

from __future__ import annotations

import pytest

from molsam.chem.arrays import Featurizer
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.chem.grover import GroverFeaturizer

FEATURIZERS: dict[str, Featurizer] = {
    "compt": ComptFeaturizer(),
    "grover": GroverFeaturizer(),
    "chemprop": ChempropFeaturizer(),
    "chemprop v2": ChempropFeaturizer(atoms="v2"),
    "cmpnn": ChempropFeaturizer(bond_order="pairs"),
    "dgllife": DgllifeFeaturizer(),
    "dgllife without loops": DgllifeFeaturizer(self_loop=False),
    "attentivefp": DgllifeFeaturizer("attentivefp"),
}


@pytest.fixture(params=FEATURIZERS, name="featurizer")
def _featurizer(request: pytest.FixtureRequest) -> Featurizer:
    return FEATURIZERS[request.param]

"""Properties of every featurizer on every molecule, and the quirks of single ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import BondStereo, BondType, RenumberAtoms

from molsam.chem import chemprop, compt
from molsam.chem.arrays import DISCONNECTED, Featurizer
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.chem.distances import LARGE, LARGEST
from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import parse
from molsam.chem.reading import Bonds
from molsam.errors import InvalidMolecule

HARD = {
    "methane": "C",
    "ion": "[Na+]",
    "hydrogen": "[H][H]",
    "dummy": "*C(=O)N*",
    "only a dummy": "*",
    "salt": "CC(=O)[O-].[Na+].[Na+].[Cl-]",
    "metals": "[Fe+3].[Pb].[Hg+2].[Og]",
    "charges": "[O-]P(=O)([O-])[O-].[Ti+4].[N-]=[N+]=N",
    "isotope": "[2H]C([2H])([13CH3])O",
    "stereo": "C/C=C\\[C@H](F)[C@@](Cl)(Br)/C=C/C",
    "dative": "[NH3]->[Pt]",
    "hexavalent": "FS(F)(F)(F)(F)F",
    "radical": "C[CH2].[O]",
    "quadruple": "[Re]$[Re]",
    "spiro": "C1CC12CCC23CCCC3",
    "porphyrin": "c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)[nH]5)n4)[nH]3",
    "long": "CC(C)CC(N)C(=O)O" + "CCOC(=O)" * 61,
    "disulfide": "SS",
    "star of degree 12": "[U](F)(F)(F)(F)(F)(F)(F)(F)(F)(F)(F)F",
}


@pytest.mark.parametrize("name", HARD)
def test_hard_molecules_pass(featurizer: Featurizer, name: str) -> None:
    mol = parse(HARD[name])
    one = featurizer(mol)
    n, m = mol.GetNumAtoms(), mol.GetNumBonds()
    assert one.nodes.shape == (n, featurizer.node_dim)
    assert one.edges.shape == (2 * m + n * featurizer.self_loops, featurizer.edge_dim)
    assert np.isfinite(one.nodes).all()
    assert np.isfinite(one.edges).all()
    # Directed bonds come in pairs, one the reverse of the other, with equal features.
    bonds = slice(0, 2 * m)
    np.testing.assert_array_equal(one.src[bonds], one.dst[bonds].reshape(-1, 2)[:, ::-1].reshape(-1))
    np.testing.assert_array_equal(one.edges[bonds][::2], one.edges[bonds][1::2])
    ends = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in mol.GetBonds()}
    assert {frozenset(pair) for pair in zip(one.src[bonds].tolist(), one.dst[bonds].tolist(), strict=True)} == ends
    if featurizer.self_loops:
        np.testing.assert_array_equal(one.src[2 * m :], np.arange(n))
        np.testing.assert_array_equal(one.dst[2 * m :], np.arange(n))
        np.testing.assert_array_equal(one.edges[2 * m :], np.eye(featurizer.edge_dim, dtype=np.float32)[[-1] * n])
        assert not one.edges[bonds, -1].any()
    assert (one.distances is not None) == featurizer.pairs


@pytest.mark.parametrize("name", HARD)
def test_the_order_of_atoms_does_not_matter(featurizer: Featurizer, name: str) -> None:
    mol = parse(HARD[name])
    n = mol.GetNumAtoms()
    order = random.Random(name).sample(range(n), n)  # new atom i is old atom order[i]
    other = RenumberAtoms(mol, order)
    before, after = featurizer(mol), featurizer(other)
    # CoMPT's last column is the index itself; Gasteiger's iteration sums in another order.
    width = featurizer.node_dim - featurizer.pairs
    atol = 1e-6 if featurizer.pairs else 0
    # A chiral tag counts neighbours in index order, so it may turn around.
    tags = slice(114, 118) if featurizer.node_dim in (133, 151) else slice(50, 54)
    a, b = before.nodes[order, :width].copy(), after.nodes[:, :width].copy()
    if featurizer.node_dim in (72, 133, 151):
        a[:, tags], b[:, tags] = a[:, tags].sum(1, keepdims=True), b[:, tags].sum(1, keepdims=True)
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    old = np.argsort(order)  # old atom -> new atom
    edges = {(old[s], old[d]): tuple(e) for s, d, e in zip(before.src, before.dst, before.edges, strict=True)}
    assert edges == {(s, d): tuple(e) for s, d, e in zip(after.src, after.dst, after.edges, strict=True)}
    if before.distances is not None and after.distances is not None:
        np.testing.assert_array_equal(before.distances[np.ix_(order, order)], after.distances)


def test_bonds_in_the_order_of_pairs() -> None:
    mol = parse("C1(CC2)CC2C1.CO")
    one = ChempropFeaturizer(bond_order="pairs")(mol)
    forward = list(zip(one.src[::2].tolist(), one.dst[::2].tolist(), strict=True))
    assert forward == sorted(forward)
    assert all(a < b for a, b in forward)
    turned = ChempropFeaturizer(bond_order="pairs")(RenumberAtoms(mol, list(range(mol.GetNumAtoms()))[::-1]))
    forward_turned = list(zip(turned.src[::2].tolist(), turned.dst[::2].tolist(), strict=True))
    assert forward_turned == sorted(forward_turned)
    free = ChempropFeaturizer()(mol)
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    assert list(zip(free.src[::2].tolist(), free.dst[::2].tolist(), strict=True)) == ends != forward


def test_grovers_charge_is_a_list_index() -> None:
    """The public code counts negative charges from the end, so that -1 and +5 share a column."""
    places = {q: GroverFeaturizer()(parse(f"[Og{q:+d}]")).nodes[0, 108:114].argmax() for q in range(-6, 6)}
    assert places == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, -1: 5, -2: 4, -3: 3, -4: 2, -5: 1, -6: 0}
    for charge in (6, -7):
        with pytest.raises(InvalidMolecule, match=rf"atom 1 has charge \{charge:+d}; .* -6 to \+5"):
            GroverFeaturizer()(parse(f"C.[Og{charge:+d}]"))


def test_chemprop_counts_every_charge() -> None:
    nodes = ChempropFeaturizer()(parse("[Og+15].[Og-15].[Og-1].C")).nodes
    assert nodes[:, 108:114].argmax(1).tolist() == [5, 5, 0, 4]


def test_grovers_rings() -> None:
    for size in range(3, 10):
        nodes = GroverFeaturizer()(parse("CC1" + "C" * (size - 2) + "C1.C")).nodes
        expected = np.zeros((size + 2, 6))
        if size < 9:
            expected[1 : size + 1, size - 3] = 1
        np.testing.assert_array_equal(nodes[:, 145:], expected)


def test_compt_falls_on_the_last_place() -> None:
    """Bond types and stereo without a place of their own count as aromatic and Z in the public code."""
    edges = ComptFeaturizer()(parse("[NH3]->[Pt]")).edges
    assert edges[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    atrop = compt._BOND_KINDS.features([(BondType.SINGLE, BondStereo.STEREOATROPCW, False, False)])
    assert atrop[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_chemprop_knows_other_stereo() -> None:
    atrop = chemprop.BONDS.features([(BondType.SINGLE, BondStereo.STEREOATROPCW, False, False)])
    assert atrop[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("element", range(1, 119))
def test_every_element_has_its_place(element: int) -> None:
    """dgllife's lists are those of DeepChem's and AttentiveFP's atom features, in their order."""
    canonical = [6, 7, 8, 16, 9, 14, 15, 17, 35, 12, 11, 20, 26, 33, 13, 53, 5, 23, 19, 81, 70, 51, 50, 47, 46, 27, 34]
    canonical += [22, 30, 1, 3, 32, 29, 79, 28, 48, 49, 25, 40, 24, 78, 80, 82]
    attentive = [5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53, 85]
    mol = parse(f"[{Chem.GetPeriodicTable().GetElementSymbol(element)}]")
    for featurizer, places in [
        (GroverFeaturizer(), dict.fromkeys(range(101, 119), 100) | {e: e - 1 for e in range(1, 101)}),
        (ComptFeaturizer(), dict.fromkeys(range(101, 119), 100) | {e: e - 1 for e in range(1, 101)}),
        (ChempropFeaturizer(), dict.fromkeys(range(101, 119), 100) | {e: e - 1 for e in range(1, 101)}),
        (ChempropFeaturizer("v2"), dict.fromkeys(range(119), 37) | {e: e - 1 for e in range(1, 37)} | {53: 36}),
        (DgllifeFeaturizer(), {e: place for place, e in enumerate(canonical)}),
        (DgllifeFeaturizer("attentivefp"), dict.fromkeys(range(119), 15) | {e: i for i, e in enumerate(attentive)}),
    ]:
        width = {74: 43, 39: 16, 72: 38}.get(featurizer.node_dim, 101)
        expected = np.zeros(width)
        if element in places:
            expected[places[element]] = 1
        np.testing.assert_array_equal(featurizer(mol).nodes[0, :width], expected)


def test_the_mass_is_the_isotopes() -> None:
    mass = ChempropFeaturizer()(parse("C.[13CH4].[Og+2]")).nodes[:, -1]
    np.testing.assert_allclose(mass, [0.12011, 0.13003355, 2.94], rtol=1e-6)


def test_rings_whichever_way_their_bonds_run() -> None:
    single = (BondType.SINGLE, BondStereo.STEREONONE, False, True)
    bonds = Bonds([(1, 0), (2, 0), (2, 1), (3, 2)], [single, single, single, (*single[:3], False)])
    assert bonds.around(4) == ([2, 2, 3, 1], [False] * 4, [True, True, True, False])


def test_compt_counts_hydrogens_that_are_atoms() -> None:
    nodes = ComptFeaturizer()(parse("[H][H].C[2H]")).nodes
    np.testing.assert_array_equal(nodes[:, 107], np.float32([1 / 8, 1 / 8, 4 / 8, 0]))
    np.testing.assert_array_equal(nodes[:, 108], np.float32([1 / 4, 1 / 4, 1 / 4, 1 / 4]))


def test_compt_without_gasteiger_parameters() -> None:
    nodes = ComptFeaturizer()(parse("[Og].C[U]C")).nodes
    assert np.isfinite(nodes).all()
    assert not nodes[0, 111:113].any()


def test_attentivefp_sees_handedness() -> None:
    r, s = (DgllifeFeaturizer("attentivefp")(parse(x)).nodes for x in ("C[C@H](N)O", "C[C@@H](N)O"))
    assert sorted((r[1, 37:].tolist(), s[1, 37:].tolist())) == [[0, 1], [1, 0]]
    assert not r[[0, 2, 3], 36:].any()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="atoms='v3' is not known; use one of: v1, v2"):
        ChempropFeaturizer(atoms="v3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="atoms='x' is not known"):
        DgllifeFeaturizer("x")  # type: ignore[arg-type]


def test_settings_are_the_constructors_arguments(featurizer: Featurizer) -> None:
    again = type(featurizer)(**featurizer.settings())
    mol = parse("C[C@H](N)C(=O)O")
    for a, b in zip(featurizer(mol), again(mol), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("smiles", ["C" * (LARGE + 1), "C1" + "C" * LARGE + "C1.O", "CC(C)C.N", "C", "C1CC2CC1CC2"])
def test_distances_by_each_method(smiles: str) -> None:
    mol = parse(smiles)
    expected = Chem.GetDistanceMatrix(mol)
    found = ComptFeaturizer()(mol).distances
    assert found is not None
    np.testing.assert_array_equal(found, np.where(expected > 1e6, DISCONNECTED, expected))
    assert found.dtype == np.int16


def test_too_many_pairs_are_refused() -> None:
    with pytest.raises(InvalidMolecule, match=f"the molecule has {LARGEST + 1} atoms"):
        ComptFeaturizer()(parse("C" * (LARGEST + 1)))

"""SMILES to RDKit molecules, with RDKit's reason when it refuses one."""

from __future__ import annotations

import contextlib
import io
import re

from rdkit import Chem, rdBase

from molsam.errors import InvalidMolecule

MAX_CHARACTERS = 10_000
"""Longer strings are refused unread: RDKit walks molecules recursively, and some 15,000 atoms exhaust the stack."""

UNREADABLE = "unreadable molecule block"
"""What stands for the SMILES of an SDF record that RDKit cannot read; no SMILES has a blank."""
MAPPED = re.compile(r":\d+\]")


def parse(smiles: str) -> Chem.Mol:
    """The sanitized molecule of a SMILES string; explicit hydrogens are merged as RDKit does.

    Outer blanks are ignored. Text after an inner blank, which RDKit would take for a name and drop, is refused.
    Raises InvalidMolecule with the reason; nothing is printed.
    """
    if len(smiles) > MAX_CHARACTERS:
        raise InvalidMolecule(f"the SMILES has {len(smiles)} characters, {MAX_CHARACTERS} are allowed")
    words = smiles.split()
    if smiles == UNREADABLE:
        raise InvalidMolecule("RDKit cannot read its atoms and bonds")
    if len(words) != 1:
        raise InvalidMolecule("the SMILES holds a blank" if words else "the SMILES is empty")
    text = words[0]
    if not text.isascii() or not text.isprintable():
        strange = next(c for c in text if not (c.isascii() and c.isprintable()))
        raise InvalidMolecule(f"the SMILES holds {strange!a}, which no SMILES has")
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text)
    if mol is None:
        raise InvalidMolecule(_reason(text))
    if not mol.GetNumAtoms():
        raise InvalidMolecule("the SMILES holds no atom")
    return mol


def canonical_smiles(mol: Chem.Mol) -> str:
    """RDKit's canonical SMILES, stereo kept and atom map numbers left out: equal molecules have equal strings."""
    with rdBase.BlockLogs():
        text = str(Chem.MolToSmiles(mol))
        if MAPPED.search(text):
            mol = Chem.Mol(mol)
            for atom in mol.GetAtoms():
                atom.SetAtomMapNum(0)
            # Read again: what is written once more still has the brackets that the numbers needed.
            text = str(Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(mol)) or mol))
        return text


def _reason(text: str) -> str:
    """What RDKit says about a SMILES it refuses, as one short phrase."""
    captured = io.StringIO()
    rdBase.LogToPythonStderr()
    try:
        with contextlib.redirect_stderr(captured):
            Chem.MolFromSmiles(text)
    finally:
        rdBase.LogToCppStreams()
    lines = [re.sub(r"^\[[\d:]+\] (SMILES Parse Error: )?", "", line) for line in captured.getvalue().splitlines()]
    lines = [line for line in lines if line.strip()] or ["RDKit gives no reason"]
    phrase = re.sub(r"( while parsing:| for input:).*", "", lines[0]).strip()
    position = re.search(r"around position (\d+)", captured.getvalue())
    return phrase[:200] + (f" around position {position[1]}" if position else "")

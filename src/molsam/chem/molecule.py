"""Parsing of SMILES, with RDKit's reason where it fails."""

from __future__ import annotations

import contextlib
import io
import re

from rdkit import Chem, rdBase

from molsam.errors import InvalidMolecule

MAX_CHARACTERS = 10_000
"""Longest SMILES that is parsed. RDKit walks molecules recursively, and about 15,000 atoms exhaust the stack."""

UNREADABLE = "unreadable molecule block"
"""Stands in place of the SMILES of an SDF record that RDKit cannot read. It has a blank, as no SMILES does."""
MAPPED = re.compile(r":\d+\]")


def parse(smiles: str) -> Chem.Mol:
    """Return the sanitized molecule of a SMILES string; explicit hydrogens are merged as RDKit does.

    Blanks around the string are ignored. A blank within it is an error, because RDKit would drop the rest as a name.
    Raises InvalidMolecule with the reason. RDKit's own messages are not printed.
    """
    if len(smiles) > MAX_CHARACTERS:
        raise InvalidMolecule(f"the SMILES has {len(smiles)} characters; at most {MAX_CHARACTERS} are allowed")
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
    """Return RDKit's canonical SMILES with stereo and without atom map numbers; equal molecules have equal strings."""
    with rdBase.BlockLogs():
        text = str(Chem.MolToSmiles(mol))
        if MAPPED.search(text):
            mol = Chem.Mol(mol)
            for atom in mol.GetAtoms():
                atom.SetAtomMapNum(0)
            # Parsed once more, else the atoms keep the brackets that their map numbers needed.
            text = str(Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(mol)) or mol))
        return text


def _reason(text: str) -> str:
    """Return RDKit's reason for refusing a SMILES, as one short phrase."""
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

"""Tables that are not delimited text: Parquet (by pyarrow), SDF (by RDKit), and .smi lists."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molsam.chem.molecule import UNREADABLE
from molsam.data.unpack import PARQUET
from molsam.errors import DataError

if TYPE_CHECKING:
    from molsam.data.table import Table

SMILES, NAME = "smiles", "name"
EMPTY_BLOCK = "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"


def parquet(path: Path, content: bytes) -> dict[str, Any]:
    """Return the columns and cells of a Parquet file; numbers in full precision, nulls as empty text."""
    import pyarrow as pa

    try:
        table = _parquet_table(content)
        texts = [_parquet_texts(column) for column in table.columns]
        kinds = [pa.types.is_floating(column.type) or pa.types.is_integer(column.type) for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as Parquet ({reason}); write it again.") from error
    # pandas' index has no name, as in a CSV file.
    columns = [re.sub(r"__index_level_\d+__", "", str(name).strip()) for name in table.column_names]
    typed = frozenset(name for name, is_number in zip(columns, kinds, strict=True) if is_number)
    return {"columns": columns, "cells": texts, "numbers": range(table.num_rows), "lines": None, "typed": typed}


def of_own_types(table: Table) -> Sequence[Any]:
    """Return a table's columns with the types of its Parquet file, as arrays of pyarrow; of another file as texts."""
    return _parquet_table(table.content).columns if table.content.startswith(PARQUET) else table.cells


def _parquet_table(content: bytes) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(io.BytesIO(content)).read()  # read_table refuses names that occur twice


def _parquet_texts(column: Any) -> list[str]:
    """Return the cells of a column as text; lists, structures and binary values as Python prints them."""
    import pyarrow as pa

    try:
        return list(column.cast(pa.string()).fill_null("").to_pylist())
    except pa.ArrowException:
        return ["" if value is None else str(value) for value in column.to_pylist()]


def sdf(path: Path, content: bytes) -> dict[str, Any]:
    """Return one row per record of an SDF file.

    The columns are the molecule block as `smiles`, the title as `name` if any record has one, and each property.
    A property called smiles or name is renamed (smiles_2), because the molecule block is what counts.
    """
    from rdkit import Chem, rdBase

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if not text.strip():
        raise DataError(f"{path} is empty; give an SDF file with at least one molecule.")
    with rdBase.BlockLogs():
        supplier, lax = Chem.SDMolSupplier(), Chem.SDMolSupplier()
        supplier.SetData(text)
        lax.SetData(text, sanitize=False, removeHs=False)
        records = [_record(Chem, supplier, lax, i) for i in range(len(supplier))]
    properties = list(dict.fromkeys(name for _, _, found in records for name in found))
    titled = any(title for _, title, _ in records)
    columns, cells = [SMILES], [[smiles for smiles, _, _ in records]]
    if titled:
        columns.append(NAME)
        cells.append([title for _, title, _ in records])
    for name in properties:
        columns.append(unique(name, [*columns, *properties] if name in columns else columns))
        cells.append([found.get(name, "") for _, _, found in records])
    if not records:
        raise DataError(f"{path} holds no molecule; give an SDF file with at least one.")
    starts = _starts(text, len(records))
    return {"columns": columns, "cells": cells, "numbers": range(len(records)), "lines": starts}


def smi(path: Path, text: str) -> dict[str, Any]:
    """Return the table of an .smi file: SMILES, then a name; further columns are separated by tabs.

    A first line that begins with smiles, smi or canonical_smiles is a header.
    """
    entries = [(line, entry) for line, entry in enumerate(text.splitlines(), 1) if entry.strip()]
    words = [entry.split() for _, entry in entries]
    rows = [_smi_cells(entry) for _, entry in entries]
    header = rows[0] if rows[0][0].lower() in (SMILES, "smi", "canonical_smiles") else []
    if header and len(set(map(len, words))) == 1:  # then blanks separate columns, and no name contains one
        header, rows = words[0], words
    if header:
        entries, rows = entries[1:], rows[1:]
    width = max(map(len, [header, *rows]))
    names = header or [SMILES, NAME]
    names = [*names, *(f"column{place + 1}" for place in range(len(names), width))][:width]
    names[0] = SMILES
    filled = [row + [""] * (width - len(row)) for row in rows]
    cells = [list(column) for column in zip(*filled, strict=True)] or [[] for _ in names]
    return {
        "columns": [name.strip() for name in names],
        "cells": cells,
        "numbers": range(len(rows)),
        "lines": [line for line, _ in entries],
    }


def unique(name: str, taken: list[str]) -> str:
    """Return the name, with a number appended if it is taken."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def _smi_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\t")] if "\t" in line.strip() else line.strip().split(None, 1)


def _record(chem: Any, supplier: Any, lax: Any, place: int) -> tuple[str, str, dict[str, str]]:
    """Return the SMILES, title and properties of a record.

    A molecule that RDKit can read but not sanitize is returned unsanitized, so that parsing its SMILES later reports
    the reason.
    """
    mol = supplier[place]
    smiles = chem.MolToSmiles(mol) if mol is not None else ""
    if mol is None:
        mol = lax[place]
        if mol is not None:
            mol.UpdatePropertyCache(strict=False)
            smiles = chem.MolToSmiles(mol)
    if mol is None:
        smiles, mol = UNREADABLE, _properties(chem, supplier.GetItemText(place))
    if mol is None:
        return UNREADABLE, "", {}
    title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
    names = mol.GetPropNames(includePrivate=False, includeComputed=False)
    return smiles, title, {str(name): str(mol.GetProp(name)).strip() for name in names}


def _properties(chem: Any, record: str) -> Any:
    """Return a molecule without atoms with the title and properties of a record whose block RDKit cannot read."""
    title, _, rest = record.partition("\n")
    _, begun, properties = rest.partition("\n>")
    if not begun:
        return None
    supplier = chem.SDMolSupplier()
    supplier.SetData(f"{title.rstrip()}{EMPTY_BLOCK}>{properties}")
    return supplier[0] if len(supplier) else None


def _starts(text: str, count: int) -> list[int]:
    """Return the line where each record begins."""
    ends = [line for line, content in enumerate(text.splitlines(), 1) if content.startswith("$$$$")]
    return [1, *(end + 1 for end in ends)][:count] + [1] * max(count - 1 - len(ends), 0)

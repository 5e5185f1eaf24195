"""Many short texts in one buffer."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import eq
from typing import overload

import numpy as np

AT_ONCE = 1 << 16
"""Number of texts that are converted together."""
SURROGATES = "surrogatepass"


class Texts(Sequence[str]):
    """Texts as UTF-8 in one buffer. A text takes its bytes and 16 more; in a list of Python it takes 57 more."""

    def __init__(self, data: np.ndarray, ends: np.ndarray, starts: np.ndarray | None = None) -> None:
        """
        data: uint8 [bytes]
        ends: int64 [n], where each text ends
        starts: int64 [n], where each text starts; None if one follows the other
        """
        self.data, self.ends = data, ends
        self._bytes = memoryview(data.data)
        self._starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)] if starts is None else starts

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Copy texts, which are read once and not kept."""
        if isinstance(texts, cls):
            return texts
        growing, rest = GrowingTexts(), iter(texts)
        while some := list(islice(rest, AT_ONCE)):
            growing.extend(some)
        return growing.done()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self._texts(self._starts[place], self.ends[place])
        return str(self._bytes[self._starts[place] : self.ends[place]], "utf-8", SURROGATES)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def _texts(self, starts: np.ndarray, ends: np.ndarray) -> list[str]:
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        return [str(self._bytes[start:end], "utf-8", SURROGATES) for start, end in pairs]

    def take(self, rows: Sequence[int] | np.ndarray) -> Texts:
        """Return some of the texts, in the same buffer."""
        places = np.asarray(rows, np.int64)
        return Texts(self.data, self.ends[places], self._starts[places])


class GrowingTexts:
    """Texts that arrive in parts."""

    def __init__(self) -> None:
        self._data, self._sizes = bytearray(), array("q")

    def extend(self, texts: Sequence[str]) -> None:
        """Append texts."""
        joined = "".join(texts).encode("utf-8", SURROGATES)
        plain = len(joined) == sum(map(len, texts))
        self._sizes.extend(map(len, texts) if plain else (len(text.encode("utf-8", SURROGATES)) for text in texts))
        self._data += joined

    def done(self) -> Texts:
        """Return all texts; do not append afterwards."""
        return Texts(np.frombuffer(self._data, np.uint8), np.frombuffer(self._sizes, np.int64).cumsum())

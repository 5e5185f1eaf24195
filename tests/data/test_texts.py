"""Texts in one buffer are the list that they were made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molsam.data import texts
from molsam.data.texts import GrowingTexts, Texts

ANY = st.lists(st.text(st.characters(), max_size=5), max_size=20)


@given(ANY, st.data())
def test_they_are_a_list(given: list[str], data: st.DataObject) -> None:
    found = Texts.of(iter(given))
    assert list(found) == given
    assert found == given
    assert found != [*given, ""]
    assert [found[place] for place in range(len(given))] == given
    assert [found[-1 - place] for place in range(len(given))] == given[::-1]
    start, end = (data.draw(st.integers(-25, 25)) for _ in range(2))
    assert found[start:end] == given[start:end]
    with pytest.raises(IndexError):
        found[len(given)]
    if given:
        rows = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=8))
        taken = found.take(rows)
        assert list(taken) == [given[row] for row in rows]
        assert taken.data is found.data, "they are not copied"
        assert list(taken.take(range(len(rows))[::-1])) == [given[row] for row in rows][::-1]


@given(st.lists(ANY, max_size=4))
def test_they_arrive_in_parts(parts: list[list[str]]) -> None:
    growing = GrowingTexts()
    for part in parts:
        growing.extend(part)
    assert list(growing.done()) == [text for part in parts for text in part]


def test_they_are_converted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "AT_ONCE", 3)
    for count in (0, 1, 3, 4, 9, 10):
        given = [str(number) * number for number in range(count)]
        assert list(Texts.of(given)) == given

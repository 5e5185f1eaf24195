"""The terminal: only characters that it can write, no trouble when it goes away, colour only on a screen."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

ERRORS = "molsam"
"""Name of the error handler that writes ASCII for what a terminal cannot show."""
PLAIN = {
    "±": "+-", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "✓": "*", "×": "x", "°": " deg",
    "≥": ">=", "≤": "<=", "→": "->", "·": ".", "’": "'", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def prepare(*, lasting: bool = False) -> None:
    """Make standard output and error fit for a screen, a pipe, a closed descriptor or an ASCII terminal.

    A stream that breaks is forgotten: standard error always, standard output if it is `lasting`, because what a
    training prints is in its folder too.
    """
    codecs.register_error(ERRORS, _plain)
    _open_closed()
    if sys.stderr is None or (sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper)):
        sys.stderr = _lasting(2, sys.stderr)
    if sys.stdout is None or (lasting and sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper)):
        sys.stdout = _lasting(1, sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (
            stream.errors in ("strict", "backslashreplace") or not stream.encoding.lower().startswith("utf")
        ):
            stream.reconfigure(errors=ERRORS)


def console(*, stderr: bool = False) -> Console:
    """Return a rich console for standard output or error."""
    from rich.console import Console
    from rich.theme import Theme

    class Piped(Console):
        """Says that its reader is gone, instead of ending the process."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

        def render_str(self, text: str, **options: Any) -> Text:
            """Spell signs before a table is laid out, so that its columns stay straight."""
            return super().render_str(spelled(text, self.encoding), **options)

    plain = Theme({"bar.complete": "bold", "bar.finished": "bold", "bar.back": "dim", "progress.remaining": "none"})
    return Piped(stderr=stderr, highlight=False, theme=plain)


def text(words: str, style: str = "") -> Text:
    """Words for a report on standard output; signs are spelled before a table is laid out: columns stay straight."""
    from rich.text import Text

    return Text(spelled(words, getattr(sys.stdout, "encoding", None) or "utf-8"), style=style)


def fitted(words: str, stream: TextIO | None, *, between: str = " ") -> str:
    """Sentences in lines that fit the screen; unchanged for a pipe, whose reader wants whole lines.

    between: where a line may end. Commands are parted by `; `, and each stays whole, so that it can be copied.
    """
    if stream is None or not stream.isatty():
        return words
    width = shutil.get_terminal_size().columns
    return "\n".join(part for line in words.split("\n") for part in _lines(line, width, between))


def _lines(line: str, width: int, between: str) -> list[str]:
    if len(line) <= width:
        return [line]
    if between == " ":
        indent = " " * (len(line) - len(line.lstrip()))
        wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        return wrapper.wrap(line)
    head, colon, rest = line.partition(": ")
    first, *others = rest.split(between)
    return [head + colon + first, *(" " * len(head + colon) + one for one in others)]


def complain(sentence: str) -> None:
    """Print a sentence about what went wrong to standard error."""
    print(fitted(f"molsam: {sentence}", sys.stderr), file=sys.stderr)


def forget_output() -> None:
    """Send to nowhere what is still to be written to standard output: its reader is gone."""
    _to_nowhere(1)


def as_data(stream: TextIO) -> TextIO:
    """Return the stream, told to write UTF-8 if it is no screen: a table is read by programs, whatever the locale."""
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    return stream


def spelled(text: str, encoding: str) -> str:
    """Return the text with every sign that the encoding has."""
    codecs.register_error(ERRORS, _plain)
    return text.encode(encoding, ERRORS).decode(encoding)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return an ASCII spelling of what cannot be encoded: the sign's own, else its number as `\\xe9`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(map(_spelled, signs)), error.end


def _spelled(sign: str) -> str:
    simple = PLAIN.get(sign) or unicodedata.normalize("NFKC", sign)
    return simple if simple.isascii() else sign.encode("ascii", "backslashreplace").decode()


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _open_closed() -> None:
    """Open descriptors 0 to 2 where they are closed: the next file would get the number, and what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


class _Lasting(io.FileIO):
    """A descriptor whose reader may go away: what is written after that is lost, and nobody fails for it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            _to_nowhere(self.fileno())
            return len(data)


def _lasting(descriptor: int, old: TextIO | None) -> io.TextIOWrapper:
    if old is not None:
        old.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor, "w", closefd=False)),
        encoding=old.encoding if old is not None else "utf-8",
        errors=ERRORS,
        line_buffering=True,
    )

"""The lines of a text manifest in whatever encoding a spreadsheet left it, and the records that quotes make of them.

Nothing here holds more than a line, or the few lines of one record: a manifest may be longer than memory.
"""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

BLOCK = 1 << 20
MAX_LINE = 1 << 20  # characters
MAX_RECORD_LINES = 100
TOO_LONG = f"a line is longer than {MAX_LINE:,} characters"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Line = tuple[int, str | None]
Tell = Callable[[str], None]


def read_lines(binary: IO[bytes], manifest: str, tell: Tell) -> Iterator[Line]:
    """Number and text of every line, without its ending (LF, CRLF or CR); None for a line that is too long.

    UTF-8 with or without a mark, UTF-16 and UTF-32 are recognised; a line that is no UTF-8 is read as Windows-1252,
    and the first such line is told.
    """
    is_told = False
    for number, line in enumerate(_byte_lines(_utf8_blocks(binary)), start=1):
        if len(line) > MAX_LINE:
            yield number, None
            continue
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            if not is_told:
                tell(f"manifest {manifest}: line {number} is not UTF-8; lines like it are read as Windows-1252")
                is_told = True
            yield number, line.decode("cp1252", "replace")


def read_records(
    lines: Iterator[Line], delimiter: str, looks_like_row: Callable[[list[str]], bool]
) -> Iterator[tuple[int, list[str] | str]]:
    """The cells of every record with the line it begins at; a text instead of cells says what is wrong with the line.

    A quote that never closes, or closes in the middle of a cell, costs its own line: reading goes on with the next.

    Args:
        lines: from read_lines.
        delimiter: one character.
        looks_like_row: whether a line inside a quoted cell is, by its looks, a row that a stray quote swallowed.
    """
    ahead: deque[Line] = deque()

    def take() -> Line | None:
        return ahead.popleft() if ahead else next(lines, None)

    while (line := take()) is not None:
        number, text = line
        if text is None:
            yield number, TOO_LONG
        elif '"' not in text:
            yield number, text.split(delimiter)
        else:
            taken: list[Line] = []
            cells = _quoted_record(text, delimiter, take, taken)
            if isinstance(cells, str) or any(looks_like_row((more or "").split(delimiter)) for _, more in taken):
                ahead.extendleft(reversed(taken))
                cells = cells if isinstance(cells, str) else "a quote opens here and swallows the rows below"
                yield number, f'{cells}; close it, or write a quotation mark inside a cell as ""'
            else:
                yield number, cells


def _quoted_record(text: str, delimiter: str, take: Callable[[], Line | None], taken: list[Line]) -> list[str] | str:
    """The cells of a record that begins with this line, or what is wrong; lines it continues on go to `taken`."""
    cells = _cells(text, delimiter)
    size = len(text)
    while cells is None:
        line = take() if len(taken) < MAX_RECORD_LINES and size <= MAX_LINE else None
        if line is None:
            return "a quote opens here and does not close"
        taken.append(line)
        if line[1] is None:
            return "a quote opens here and does not close"
        size += len(line[1])
        text = f"{text}\n{line[1]}"
        if '"' in line[1]:
            cells = _cells(text, delimiter)
    return cells


def _cells(text: str, delimiter: str) -> list[str] | str | None:
    """Cells; None while a quote is open; a text where a quote closes in the middle of a cell."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=f'{delimiter} "' in text))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
        if "field larger" in str(error):
            return TOO_LONG
        return "a quote closes in the middle of a cell"


def _byte_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their endings; of a line that is too long only as much as shows that it is."""
    carry = b""
    for block in blocks:
        pieces = (carry + block).splitlines(keepends=True)
        carry = pieces.pop() if pieces else b""  # its ending may go on in the next block
        for piece in pieces:
            yield piece.rstrip(b"\r\n")
        if len(carry) > MAX_LINE and carry[-1:] not in (b"\r", b"\n"):
            carry = carry[: MAX_LINE + 1]
    if carry:
        yield carry.rstrip(b"\r\n")


def _utf8_blocks(binary: IO[bytes]) -> Iterator[bytes]:
    head = binary.read(BLOCK)
    encoding = _encoding(head)
    if encoding == "utf-8":
        block = head.removeprefix(codecs.BOM_UTF8)
        while block:
            yield block
            block = binary.read(BLOCK)
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    block = head
    while block:
        yield decoder.decode(block).encode("utf-8", "replace")
        block = binary.read(BLOCK)
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    sample = head[:4096]
    # UTF-16 without a mark: every other byte of Latin text is NUL.
    if len(sample) >= 8 and sample[1::2].count(0) > 0.4 * len(sample[1::2]):
        return "utf-16-le"
    if len(sample) >= 8 and sample[::2].count(0) > 0.4 * len(sample[::2]):
        return "utf-16-be"
    return "utf-8"

"""The file formats of manifests: each becomes a stream of records, and a record that is broken says so itself."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from lyra_core.errors import ManifestError
from tasks.image_names import is_image_name
from tasks.manifest_columns import COLUMNS, canonical, known_columns, meant, require_seed
from tasks.manifest_lines import TOO_LONG, Line, Tell, read_lines, read_records

if TYPE_CHECKING:
    import pyarrow as pa

MAX_JSON_BYTES = 64 << 20
_COMPRESSIONS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda binary: cast("IO[bytes]", gzip.GzipFile(fileobj=binary)),
    ".bz2": lambda binary: cast("IO[bytes]", bz2.BZ2File(binary)),
    ".xz": lambda binary: cast("IO[bytes]", lzma.LZMAFile(binary)),  # noqa: SIM115  its reader closes the file below it
}
# Tables of other programs, and what to do with them.
_FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "save the sheet as CSV UTF-8 and name that"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro", ".db", ".sqlite"), "write it as Parquet or CSV"),
    **dict.fromkeys((".yaml", ".yml", ".xml", ".toml"), "write one JSON object a line into a .jsonl file"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "unpack it and name the folder"),
}
_DELIMITERS = ",;\t|"
_MANY_WITHOUT_SEED = 100


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A row as found: where it stands ("line 4"), its cells by known column, or the problem that hides them."""

    place: str
    cells: Mapping[str, object]
    problem: str = ""


def format_of(name: str) -> str | None:
    """The suffix that decides how a manifest is read (".csv", ...), or None for what is no manifest."""
    stem, suffix = posixpath.splitext(name.rstrip("/").lower())
    if suffix in _COMPRESSIONS:
        suffix = posixpath.splitext(stem)[1]
        return suffix if suffix in _READERS else None
    return suffix if suffix in _READERS or suffix == ".parquet" else None


def require_readable(name: str, shown: str) -> None:
    """Refuse tables this program does not read, with what to do instead.

    Raises:
        ManifestError: a spreadsheet, an archive, or another container.
    """
    suffix = posixpath.splitext(name.rstrip("/").lower())[1]
    if suffix in _FOREIGN:
        raise ManifestError(f"seeds: {shown!r}: {suffix} is neither an image nor a manifest; {_FOREIGN[suffix]}")


def read_manifest(binary: IO[bytes], name: str, shown: str, tell: Tell) -> Iterator[ManifestRecord]:
    """The records of one manifest file.

    Args:
        binary: its bytes, seekable for Parquet.
        name: its file name; the suffix says how it is read.
        shown: its public name, for messages.
        tell: takes one-line notices.

    Raises:
        ManifestError: it cannot be read as what its suffix says, or its header is wrong.
    """
    suffix = format_of(name)
    try:
        if suffix == ".parquet":
            yield from _read_parquet(binary, shown)
            return
        compression = posixpath.splitext(name.lower())[1]
        stream = _COMPRESSIONS[compression](binary) if compression in _COMPRESSIONS else binary
        yield from _READERS[str(suffix)](stream, shown, tell)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ManifestError(f"manifest {shown}: it is cut short or damaged ({error}); copy it again") from error


def _read_csv(binary: IO[bytes], shown: str, tell: Tell) -> Iterator[ManifestRecord]:
    lines = read_lines(binary, shown, tell)
    header, delimiter = _header(lines, shown)
    columns = known_columns(header, shown)
    known = [(index, column) for index, column in enumerate(columns) if column is not None]
    seed = columns.index("seed")

    def looks_like_row(cells: list[str]) -> bool:
        return len(cells) == len(header) > 1 and is_image_name(cells[seed].strip(' "'))

    for number, cells in read_records(lines, delimiter, looks_like_row):
        place = f"line {number}"
        if isinstance(cells, str):
            yield ManifestRecord(place, {}, cells)
        elif len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            sign = {"\t": "a tab"}.get(delimiter, repr(delimiter))
            yield ManifestRecord(
                place,
                {"seed": cells[seed]},
                f"it has {len(cells)} cells where the header has {len(header)}; put text that holds {sign} into double "
                "quotes",
            )
        else:
            yield ManifestRecord(place, {column: cells[index] for index, column in known if index < len(cells)})


def _header(lines: Iterator[Line], shown: str) -> tuple[list[str], str]:
    """The cells of the header and the delimiter that gives the most known columns."""
    for _, line in lines:
        if line is None:
            raise ManifestError(f"manifest {shown}: {TOO_LONG}, and it should be the header; is it CSV?")
        if not line.strip(f"{_DELIMITERS} "):
            continue
        if line.lower().startswith("sep=") and len(line.strip()) <= 5:
            continue  # Excel's hint; the header itself tells as much
        splits = [(_split(line, delimiter), delimiter) for delimiter in _DELIMITERS]
        known = [(sum(canonical(cell) in COLUMNS for cell in cells), len(cells)) for cells, _ in splits]
        return splits[known.index(max(known))]
    return [], ","


def _split(line: str, delimiter: str) -> list[str]:
    cells = next(read_records(iter([(1, line)]), delimiter, lambda _: False))[1]
    return line.split(delimiter) if isinstance(cells, str) else cells


def _read_jsonl(binary: IO[bytes], shown: str, tell: Tell) -> Iterator[ManifestRecord]:
    keys = _Keys()
    lines = ((number, line) for number, line in read_lines(binary, shown, tell) if line is None or line.strip())
    yield from _with_seeds((_json_record(number, line, keys, shown) for number, line in lines), keys, shown)


def _json_record(number: int, line: str | None, keys: _Keys, shown: str) -> ManifestRecord:
    place = f"line {number}"
    if line is None:
        return ManifestRecord(place, {}, TOO_LONG)
    if number == 1 and (line.strip() == "[" or line.lstrip().startswith("[{")):
        raise ManifestError(f"manifest {shown}: it is a JSON array, not one object a line; name it .json")
    value, problem = _parsed(line)
    return ManifestRecord(place, {}, problem) if problem else keys.record(place, value)


def _with_seeds(records: Iterator[ManifestRecord], keys: _Keys, shown: str) -> Iterator[ManifestRecord]:
    """The records, unless the first hundred, or all, have no seed: then the file is at fault and not its rows."""
    held: list[ManifestRecord] = []
    for record in records:
        if "seed" in record.cells:
            yield from held
            yield record
            yield from records
            return
        held.append(record)
        if len(held) == _MANY_WITHOUT_SEED:
            break
    if keys.first:
        require_seed(keys.first, [canonical(key) for key in keys.first], shown)
    if len(held) == _MANY_WITHOUT_SEED:
        raise ManifestError(f"manifest {shown}: none of its first {len(held)} rows can be read; {held[0].problem}")
    yield from held


def _read_json(binary: IO[bytes], shown: str, tell: Tell) -> Iterator[ManifestRecord]:  # noqa: ARG001  one signature
    data = binary.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ManifestError(
            f"manifest {shown}: a JSON array is read up to {MAX_JSON_BYTES >> 20} MiB; write one object a line (.jsonl)"
        )
    try:
        rows = json.loads(data)  # detects UTF-8, UTF-16 and UTF-32
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"manifest {shown}: wanted a JSON array of objects, found no JSON ({_short(error)}); one object a line is "
            "a .jsonl file"
        ) from error
    if not isinstance(rows, list):
        raise ManifestError(f"manifest {shown}: wanted a JSON array of objects, found {_kind(rows)}")
    keys = _Keys()
    records = (
        ManifestRecord(place, {"seed": row}) if isinstance(row, str) else keys.record(place, row)
        for place, row in ((f"element {number}", row) for number, row in enumerate(rows, start=1))
    )
    yield from _with_seeds(records, keys, shown)


def _read_list(binary: IO[bytes], shown: str, tell: Tell) -> Iterator[ManifestRecord]:
    for number, line in read_lines(binary, shown, tell):
        place = f"line {number}"
        yield ManifestRecord(place, {}, TOO_LONG) if line is None else ManifestRecord(place, {"seed": line})


def _read_parquet(binary: IO[bytes], shown: str) -> Iterator[ManifestRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(binary)
        schema = table.schema_arrow
        columns = known_columns(schema.names, shown)
        _require_addresses(schema.field(columns.index("seed")).type, shown)
        names = {name: column for name, column in zip(schema.names, columns, strict=True) if column is not None}
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=list(names)):
            for row in _rows(batch):
                number += 1
                cells = {names[name]: value for name, value in row.items() if name in names}
                yield ManifestRecord(f"row {number}", cells)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ManifestError(
            f"manifest {shown}: it is no Parquet file or damaged ({_short(error)}); write it again"
        ) from error


def _rows(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows of a batch; text as bytes where some of it is no UTF-8, so that only its own row is lost."""
    import pyarrow as pa

    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        types = pa.types
        texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_dictionary)
        raw = [
            column.cast(pa.large_binary()) if any(test(column.type) for test in texts) else column for column in batch
        ]
        return pa.RecordBatch.from_arrays(raw, names=batch.schema.names).to_pylist()


def _require_addresses(kind: pa.DataType, shown: str) -> None:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    binaries = (types.is_binary, types.is_large_binary, types.is_binary_view)
    if not any(test(kind) for test in texts + binaries):
        held = "pictures" if types.is_struct(kind) else "other values"
        raise ManifestError(
            f"manifest {shown}: the column 'seed' holds {held} ({str(kind)[:60]}), wanted paths or URLs; write the "
            "pictures to files and name these"
        )


class _Keys:
    """Names of columns in JSON objects, where every row has its own; each distinct name is looked at once."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self._known: dict[str, str] = {}

    def record(self, place: str, row: object) -> ManifestRecord:
        """The cells of known columns, or what is wrong with the row."""
        if not isinstance(row, dict):
            return ManifestRecord(place, {}, f"it wants an object, found {_kind(row)}")
        self.first = self.first or list(row)
        cells: dict[str, object] = {}
        others = []
        for key, value in row.items():
            name = self._known.get(key) or self._known.setdefault(key, canonical(key))
            if name not in COLUMNS:
                others.append((key, name))
            elif name in cells:
                return ManifestRecord(place, {}, f"the column {name!r} stands there more than once; keep one of them")
            else:
                cells[name] = value
        for key, name in others:
            near = meant(name, cells)
            if near and value_is_set(row[key]):
                problem = f"column {key[:40]!r} is not known, did you mean {near!r}? Rename it"
                return ManifestRecord(place, cells, problem)
        return ManifestRecord(place, cells)


def value_is_set(value: object) -> bool:
    """Whether a cell holds anything."""
    return value is not None and not (isinstance(value, str | bytes) and not value.strip())


def _parsed(line: str) -> tuple[object, str]:
    try:
        return json.loads(line), ""
    except RecursionError:
        return None, "it is not JSON this program reads (nested too deeply)"
    except ValueError as error:
        return None, f"it is not JSON ({_short(error)})"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:120]}..."


def _kind(value: object) -> str:
    return {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


_READERS: dict[str, Callable[[IO[bytes], str, Tell], Iterator[ManifestRecord]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_list,
}
MANIFEST_SUFFIXES: Sequence[str] = (*_READERS, ".parquet")


def part_names(names: Iterable[str]) -> list[str]:
    """The part files of a manifest that is a folder (as Spark and dask write them), in order."""
    return sorted(name for name in names if format_of(name) and not posixpath.basename(name).startswith((".", "_")))

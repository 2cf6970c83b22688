"""Describes a snapshot in Croissant 1.1 (http://mlcommons.org/croissant/1.1), which data set search engines read."""

from __future__ import annotations

import json
from dataclasses import fields

from lyra_core.records import FrameRecord, WorldRecord
from lyra_core.snapshot import PartFile, SnapshotRef

_CITE_AS = "Shen et al., Lyra 2.0: Explorable Generative 3D Worlds, 2026, arXiv:2604.13036; made with lyra-worlds"
_PARQUET = "application/x-parquet"
_OWN_TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
    "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source",
    "subField", "transform",
)  # fmt: skip
_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "int8": "cr:Int8",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float": "cr:Float32",
    "double": "cr:Float64",
    "timestamp": "sc:DateTime",
}


def croissant_json(name: str, ref: SnapshotRef, license_name: str, description: str) -> str:
    """The JSON-LD of a snapshot: its part files with digests, and the columns of `worlds` and `frames`."""
    document = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "name": name,
        "description": description,
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "license": license_name,
        "citeAs": _CITE_AS,
        "version": f"{ref.version}.0.0",
        "datePublished": ref.created_at,
        "isLiveDataset": True,
        "distribution": [
            *(_file(part) for part in (*ref.worlds, *ref.frames)),
            _file_set("worlds", ref.worlds),
            _file_set("frames", ref.frames),
        ],
        "recordSet": [
            _record_set("worlds", WorldRecord, ["world_id"]),
            _record_set("frames", FrameRecord, ["world_id", "frame"]),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _context() -> dict[str, object]:
    """The terms of the specification's standard context (Croissant 1.1, appendix 1)."""
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "name": {"@container": "@language"},
        "description": {"@container": "@language"},
        **{term: f"cr:{term}" for term in _OWN_TERMS},
    }


def _file(part: PartFile) -> dict[str, object]:
    return {
        "@type": "cr:FileObject",
        "@id": part.key,
        "name": part.key.rpartition("/")[2],
        "contentUrl": part.key,
        "contentSize": f"{part.bytes} B",
        "encodingFormat": _PARQUET,
        "sha256": part.sha256,
    }


def _file_set(table: str, parts: tuple[PartFile, ...]) -> dict[str, object]:
    return {
        "@type": "cr:FileSet",
        "@id": table,
        "name": table,
        "description": f"Parts of the table {table}.",
        "encodingFormat": _PARQUET,
        "includes": [part.key for part in parts],
    }


def _record_set(table: str, record: type[WorldRecord | FrameRecord], key: list[str]) -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": f"{table}-rows",
        "name": table,
        "key": [{"@id": f"{table}-rows/{name}"} for name in key],
        "field": [
            _field(table, f.name, f.metadata["type"], f.metadata["meaning"])
            for f in fields(record)
            if _element_type(f.metadata["type"]) in _TYPES  # structs have no type in Croissant
        ],
    }


def _field(table: str, name: str, kind: str, meaning: str) -> dict[str, object]:
    described: dict[str, object] = {
        "@type": "cr:Field",
        "@id": f"{table}-rows/{name}",
        "name": name,
        "description": meaning,
        "dataType": _TYPES[_element_type(kind)],
        "source": {"fileSet": {"@id": table}, "extract": {"column": name}},
    }
    if kind.startswith("list<"):
        described["isArray"] = True
        described["arrayShape"] = kind.partition(">")[2].strip("[]") or "-1"
    return described


def _element_type(kind: str) -> str:
    return kind.removeprefix("list<").partition(">")[0] if kind.startswith("list<") else kind

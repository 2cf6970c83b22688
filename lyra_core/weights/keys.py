"""What the released files call their tensors, and the one comparison of keys and shapes that all
loading goes through.

Modules of this project use the released names without prefix, so that a key map is nearly always
"take the prefix off".
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lyra_core.errors import StateDictError

WRAPPERS = ("state_dict", "module", "model", "net")
LISTED_GROUPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """How the keys of a released file become the keys of a module.

    Attributes:
        selects: where any key begins with one of these, only such keys are used and the prefix goes
            (a checkpoint that holds several models in one file).
        strips: prefixes taken off, repeatedly, when all keys have them (wrappers of training code).
        ignores: patterns of keys that carry nothing a module needs.
    """

    selects: tuple[str, ...] = ()
    strips: tuple[str, ...] = ("module.", "net.", "model.")
    ignores: tuple[str, ...] = ()


# Transformer Engine leaves an entry without content for each attention
ALWAYS_IGNORED = ("*._extra_state", "_extra_state")

RULES: dict[str, KeyRules] = {
    "tensors": KeyRules(),
    # net_ema: an unused second copy; accum_*: four counters of its training
    "lyra2-dit": KeyRules(selects=("net.",), ignores=("net_ema.*", "accum_*")),
    "wan-dit": KeyRules(),
    "wan-vae": KeyRules(),
    "umt5": KeyRules(),
    # The same file holds the text tower, and the end of the vision tower, which the video model
    # does not read: it takes the tokens of the last block but one.
    "clip": KeyRules(
        selects=("visual.",),
        ignores=("textual.*", "log_scale", "transformer.31.*", "post_norm.*", "head"),
    ),
    "da3": KeyRules(selects=("model.",)),
    "negative-prompt": KeyRules(),
    "lora": KeyRules(strips=()),
    "mini": KeyRules(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """Module keys by file key, and the file's keys that are left out on purpose."""

    names: Mapping[str, str]
    ignored: tuple[str, ...]


def map_keys(keys: Iterable[str], rules: KeyRules) -> KeyMap:
    """Applies the rules of a kind to the keys of a file.

    Raises:
        StateDictError: a key is in the file twice (once flat, once nested).
    """
    names: dict[str, str] = {}
    ignored: list[str] = []
    keys = list(keys)
    if doubled := [key for key, count in Counter(keys).items() if count > 1]:
        raise StateDictError(f"the file holds keys twice:\n{section('doubled', doubled)}")
    for key in keys:
        if any(fnmatchcase(key, pattern) for pattern in (*ALWAYS_IGNORED, *rules.ignores)):
            ignored.append(key)
        else:
            names[key] = key
    names = _strip(names, rules)
    for prefix in rules.selects:
        if any(name.startswith(prefix) for name in names.values()):
            ignored += [key for key, name in names.items() if not name.startswith(prefix)]
            names = {key: name.removeprefix(prefix) for key, name in names.items() if name.startswith(prefix)}
    names = _strip(names, rules)
    for key, name in list(names.items()):
        if any(fnmatchcase(name, pattern) for pattern in rules.ignores):
            ignored.append(key)
            del names[key]
    return KeyMap(names=names, ignored=tuple(ignored))


def _strip(names: dict[str, str], rules: KeyRules) -> dict[str, str]:
    stripped = True
    while stripped and names:
        stripped = False
        for prefix in rules.strips:
            if all(name.startswith(prefix) for name in names.values()):
                names = {key: name.removeprefix(prefix) for key, name in names.items()}
                stripped = True
    return names


def require_match(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], origin: str) -> None:
    """Compares the keys and shapes of a file with those of a module.

    Raises:
        StateDictError: keys are missing or unexpected, or shapes differ; all are listed, grouped
            by block.
    """
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    wrong = [key for key in wanted if key in found and tuple(found[key]) != tuple(wanted[key])]
    if not (missing or unexpected or wrong):
        return
    notes = {key: f"should be {_shape(wanted[key])}, is {_shape(found[key])}" for key in wrong}
    parts = [
        section("missing", missing, {key: _shape(wanted[key]) for key in missing}),
        section("unexpected", unexpected, {key: _shape(found[key]) for key in unexpected}),
        section("of wrong shape", wrong, notes),
    ]
    raise StateDictError(
        f"{origin} does not fit its model ({len(wanted)} keys wanted, {len(found)} found):\n"
        + "\n".join(part for part in parts if part)
    )


def _shape(shape: Iterable[int]) -> str:
    return "[" + " ".join(str(size) for size in shape) + "]"


def section(title: str, keys: Iterable[str], notes: Mapping[str, str] | None = None) -> str:
    """A heading with a count, then the keys in groups; empty when there are none."""
    keys = list(keys)
    if not keys:
        return ""
    lines = group_keys(keys, notes or {})
    if len(lines) > LISTED_GROUPS:
        lines = [*lines[:LISTED_GROUPS], f"... and {len(lines) - LISTED_GROUPS} more groups"]
    return f"  {len(keys)} {title}:\n" + "\n".join(f"    {line}" for line in lines)


def group_keys(keys: Iterable[str], notes: Mapping[str, str] | None = None) -> list[str]:
    """Keys that differ only in one number, as one line: blocks.{0..39}.norm3.weight.

    Args:
        keys: the keys.
        notes: a remark for each key; keys are grouped only with keys of the same remark.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for key in keys:
        number = re.search(r"(?<=\.)\d+(?=\.)", key)
        pattern = key if number is None else f"{key[: number.start()]}{{}}{key[number.end() :]}"
        groups[pattern, (notes or {}).get(key, "")].append((int(number.group()) if number else 0, key))
    lines = []
    for (pattern, note), members in groups.items():
        if len(members) == 1:
            line = members[0][1]
        else:
            line = pattern.replace("{}", "{" + _ranges(sorted(number for number, _ in members)) + "}")
        lines.append(f"{line} {note}".rstrip())
    return lines


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)

"""Data shown to people: names, captions and messages from elsewhere must never act on a terminal, a page or a shell.

A file name may hold an escape sequence, a caption square brackets, an error half an HTML page. Whatever is printed,
put into Markdown or suggested as a command goes through one of these.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

# Characters that do something instead of showing something: controls (Cc), directions of writing and the like (Cf),
# halves of surrogate pairs from undecodable file names (Cs), line and paragraph separators.
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners of scripts and emoji: part of how words are written, and harmless.
_HARMLESS = {"\u200c", "\u200d"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#!$])")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def for_terminal(text: object, *, keep_lines: bool = False) -> str:
    """Text in which whatever would act on a terminal is spelt out: ESC becomes \\x1b.

    Args:
        text: anything; its str() is shown.
        keep_lines: leave line feeds as they are, for messages of several lines.
    """
    return "".join(
        character if not _acts(character) or (keep_lines and character == "\n") else _spelt(character)
        for character in str(text)
    )


def for_markdown(text: object) -> str:
    """Text that stays text in Markdown and in the cells of its tables: no link, picture, HTML or new line."""
    shown = for_terminal(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", shown)


def code_for_markdown(text: object, *, in_table: bool = False) -> str:
    """Text as inline code in Markdown, whatever backticks (and, in a table, bars) it holds."""
    shown = for_terminal(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    if shown.startswith("`") or shown.endswith("`") or not shown.strip():
        shown = f" {shown} "
    if in_table:
        shown = shown.replace("|", "\\|")
    return f"{fence}{shown}{fence}"


def for_shell(argument: object) -> str:
    """An argument as it can be pasted into a shell (bash, zsh): quoted where it has to be, never an option."""
    text = str(argument)
    if text.startswith("-"):
        text = f"./{text}"
    if not any(_acts(character) for character in text):
        return shlex.quote(text)
    data = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data) + "'"


def _acts(character: str) -> bool:
    if character.isascii():
        return not character.isprintable()
    return unicodedata.category(character) in _ACTING and character not in _HARMLESS


def _spelt(character: str) -> str:
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"

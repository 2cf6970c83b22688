"""Hostile strings come out as text: on a terminal, in Markdown, in a shell."""

import subprocess

import pytest

from lyra_core.escape import code_for_markdown, for_markdown, for_shell, for_terminal

HOSTILE = [
    "plain [final] (2).jpg",
    "[bold]x[/nope] [/INST]",
    "\x1b[2J\x1b]0;title\x07 \x1b]8;;http://x\x1b\\link",
    "two\nlines\tand\rmore",
    "\x9b31m and \x85",
    "right\u202eto left \u2066isolate",
    "a|b `code` ``more`` <img src=x onerror=alert(1)> [link](javascript:1) ![p](http://x/y) $x$ ~~no~~ # h",
    "`",
    "",
    "-rf",
    'it\'s "quoted" $HOME `id` \\ ; & > <',
    "caf\u00e9 \U0001f469\u200d\U0001f680",
    "undecodable \udcff",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_nothing_that_acts(text):
    shown = for_terminal(text)
    assert all(character.isprintable() or character in "\u200c\u200d" for character in shown), ascii(shown)
    if text.isprintable():
        assert shown == text


def test_what_acted_is_still_to_be_read():
    assert for_terminal("a\x1b]0;t\x07\nb") == "a\\x1b]0;t\\x07\\nb"
    assert for_terminal("a\nb\x9b", keep_lines=True) == "a\nb\\x9b"
    assert for_terminal("\u202e\udcff") == "\\u202e\\udcff"


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_gets_one_line_of_text(text):
    """What a real renderer of GitHub's Markdown makes of it: the text, in one cell, and no other element."""
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    for cell in (for_markdown(text), code_for_markdown(text, in_table=True)):
        page = html.render(f"| a | b |\n|---|---|\n| {cell} | end |\n")
        assert page.count("<td>") == 2, page
        assert page.count("<tr>") == 2, page
        for element in ("<img", "<a ", "<script", "<s>", "<em>", "<strong>"):
            assert element not in page, page
        assert "<td>end</td>" in page, page


def test_ordinary_words_stay_as_they_are():
    assert for_markdown("wanted an image, found 3 words; see (a.b)") == "wanted an image, found 3 words; see (a.b)"
    assert code_for_markdown("photos/one.jpg") == "`photos/one.jpg`"


@pytest.mark.parametrize("text", [t for t in HOSTILE if t])
def test_a_shell_hands_back_the_argument(text):
    quoted = for_shell(text)
    assert for_terminal(quoted) == quoted
    command = ["bash", "-c", f"printf %s {quoted}"]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    wanted = f"./{text}" if text.startswith("-") else text
    assert found == wanted.encode("utf-8", "surrogateescape")

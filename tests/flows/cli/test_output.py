"""What people see of the project's own warnings."""

import warnings

from flows.cli.output import plain_warnings
from lyra_core.errors import LyraWarning


def test_warnings_are_sentences_without_a_place_in_the_code(capsys):
    others = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *told: others.append(str(told[0]))
        plain_warnings()
        warnings.warn("the camera moves 3 m\x1b[31m to frame 2; it may not follow", LyraWarning, stacklevel=1)
        assert capsys.readouterr().err == "warning: the camera moves 3 m\\x1b[31m to frame 2; it may not follow\n"
        warnings.warn("something of a library", DeprecationWarning, stacklevel=1)
        assert (others, capsys.readouterr().err) == (["something of a library"], "")

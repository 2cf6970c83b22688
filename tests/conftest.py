"""Checks every shape annotation of lyra_core while tests run, where beartype is installed."""

import importlib.util

if importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("lyra_core", "beartype.beartype")

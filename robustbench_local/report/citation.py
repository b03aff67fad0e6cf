"""How to cite this software, as CITATION.cff has it, which a wheel does not hold."""

from __future__ import annotations

from robustbench_local import __version__

_TITLE = "robustbench_local: adversarial attacks against defenses, judged per sample, on your own machine"
_AUTHORS = "The robustbench_local authors"
_YEAR = 2026


def bibtex() -> str:
    """A BibTeX entry of this version."""
    return (
        "@software{robustbench_local,\n"
        f"  title = {{{{{_TITLE.replace('_', chr(92) + '_')}}}}},\n"
        f"  author = {{{{{_AUTHORS.replace('_', chr(92) + '_')}}}}},\n"
        f"  version = {{{__version__}}},\n"
        f"  year = {{{_YEAR}}}\n"
        "}\n"
    )

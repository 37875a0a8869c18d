"""The command line: ``terrarium run``, ``list``, ``show``, ``report`` and the rest.

Commands import what they need when they run, so that ``--help`` and ``report`` load no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    0: done; 1: a cell failed or something unexpected; 2: bad input; 3: store; 130: interrupted.
    """
    from terrarium.cli.app import run

    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))

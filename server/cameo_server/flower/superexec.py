"""Flower's superexec, ended with its parent: `python -m cameo_server.flower.superexec PARENT [options]`.

The options are those of `flower-superexec`. It starts one process per run, which imports our installed ServerApp.
It installs nothing.
"""

from __future__ import annotations

import sys

from cameo_server.flower.process import end_with_parent


def main() -> None:
    """Entry point of the module."""
    end_with_parent(int(sys.argv.pop(1)))
    from flwr.supercore.cli.flower_superexec import flower_superexec

    sys.argv[0] = "flower-superexec"
    flower_superexec()


if __name__ == "__main__":
    main()

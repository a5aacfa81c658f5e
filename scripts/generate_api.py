"""Writes the Python of protocol/cameo_protocol/operator_api/operator.proto next to it: python scripts/generate_api.py.

Needs grpcio-tools (in the dev extra). A test demands that what is committed is what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "protocol"
PROTO = "cameo_protocol/operator_api/operator.proto"


def generate(out: Path) -> None:
    """Write operator_pb2.py, operator_pb2.pyi and operator_pb2_grpc.py below `out`, in the package's folders."""
    from grpc_tools import protoc

    args = ["protoc", f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", PROTO]
    if protoc.main(args) != 0:
        sys.exit(f"protoc refused {PROTO}")


if __name__ == "__main__":
    generate(ROOT)

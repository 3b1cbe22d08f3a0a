"""Writes aimd/adapters/dra/proto/*_pb2.py and .pyi anew: `python -m tests.dra.generated` from the project's folder."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PROTO = Path("aimd/adapters/dra/proto")


def generate(folder: Path) -> None:
    """Below that folder, as if it were the project's."""
    from grpc_tools import protoc

    sources = [path.relative_to(PROJECT).as_posix() for path in sorted((PROJECT / PROTO).glob("*.proto"))]
    code = protoc.main(["protoc", f"--proto_path={PROJECT}", f"--python_out={folder}", f"--pyi_out={folder}", *sources])
    assert code == 0, "protoc does not take them"


if __name__ == "__main__":
    generate(PROJECT)
    sys.exit(0)

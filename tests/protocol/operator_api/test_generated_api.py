"""The committed Python of the operator interface is what its proto file gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("grpc_tools", reason="grpcio-tools is in the dev extra")
ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "cameo_protocol/operator_api"


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate_api", ROOT / "scripts" / "generate_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(tmp_path)
    for made in (tmp_path / PACKAGE).iterdir():
        committed = ROOT / "protocol" / PACKAGE / made.name
        assert committed.read_text() == made.read_text(), f"run: python scripts/generate_api.py ({made.name})"

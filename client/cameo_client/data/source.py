"""The sources that a hospital can have. Each is a public mapping and a path of this hospital's own."""

from __future__ import annotations

from cameo_client.data.omop_mapping import OmopMapping, OmopSource
from cameo_client.data.table_mapping import TableMapping, TableSource

SourceConfig = TableSource | OmopSource

__all__ = ["OmopMapping", "OmopSource", "SourceConfig", "TableMapping", "TableSource"]

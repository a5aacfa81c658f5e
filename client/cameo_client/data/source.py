"""The sources that a hospital can have. Each is a public mapping and a place of this hospital's own."""

from __future__ import annotations

from cameo_client.data.database import Database
from cameo_client.data.fhir_mapping import FhirMapping, FhirSource
from cameo_client.data.omop_mapping import OmopMapping, OmopSource
from cameo_client.data.table_mapping import TableMapping, TableSource

SourceConfig = TableSource | OmopSource | FhirSource

__all__ = [
    "Database", "FhirMapping", "FhirSource", "OmopMapping", "OmopSource", "SourceConfig", "TableMapping", "TableSource",
]  # fmt: skip

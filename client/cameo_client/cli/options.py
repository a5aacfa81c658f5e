"""Options that several commands of `cameo-node` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cameo_protocol.console import repeated

if TYPE_CHECKING:
    from cameo_client.home import DataConfig

Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", callback=repeated, help="State folder. Default: $XDG_STATE_HOME/cameo-node."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", help="Approve without a question (fingerprints compared).")]

# The hospital's name and data source, for `init` and `join`. A command without a default for one of them requires it.
SiteName = Annotated[str | None, typer.Option("--name", metavar="SITE", help="Name in the federation: a-z 0-9 . _ -")]
Source = Annotated[
    str | None, typer.Option("--source", metavar="KIND", help="Kind of data source: table, omop or fhir.")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="File, folder, or postgresql://USER@HOST/DATABASE.")
]
Mapping = Annotated[
    str | None,
    typer.Option("--mapping", metavar="NAME", help="How its columns are read: a name in conf/sources, or FILE.yaml."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="The database's password; only its owner may read it."),
]
PasswordEnv = Annotated[
    str | None, typer.Option("--password-env", metavar="NAME", help="Environment variable with that password.")
]
PagePort = Annotated[
    int | None,
    typer.Option("--page-port", metavar="P", help="Port of the hospital's page, local; 0: no page. Default: 9096."),
]
PseudonymKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--pseudonym-key-file",
        metavar="FILE",
        help="pseudonym/hmac.key of an earlier node, so that its patients keep their pseudonyms.",
    ),
]


def data_config(
    source: str | None, data: str | None, mapping: str | None, password_file: Path | None, password_env: str | None
) -> DataConfig:
    """[data] of node.toml from these options, paths made absolute; nothing is looked for yet."""
    from cameo_client.data.database import is_url
    from cameo_client.home import DataConfig, checked

    return checked(
        DataConfig,
        kind=source,
        path=data if data is None or is_url(data) else str(Path(data).absolute()),
        mapping=str(Path(mapping).absolute()) if mapping and mapping.endswith(".yaml") else mapping,
        password_file=str(password_file.absolute()) if password_file else None,
        password_env=password_env,
    )


def require_pseudonym(text: str) -> None:
    """Refuse what can be no pseudonym, such as a person id: "nothing is known of it" would be no answer."""
    from cameo_protocol.errors import OperatorError

    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise OperatorError(
            "option-invalid",
            what="PSEUDONYM is none: it has 32 hex digits, in small letters",
            do="find it from the person id: cameo-node data pseudonym < id.txt",
        )

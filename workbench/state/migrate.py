"""Bring a state database to the newest schema, by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from workbench.errors import WorkspaceError

FOLDER = Path(__file__).parent / "migrations"
# The schema that was there before Alembic, which SQLite's user_version told.
_FIRST, _FIRST_FORMAT = "0001", 1


def migrate(connection: Connection) -> None:
    """Run every migration that the database lacks, in the transaction of the connection.

    Raises:
        WorkspaceError: the database was written by a newer workbench.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        if found is not None and found not in known:
            raise _newer(found)
    elif connection.dialect.name == "sqlite":
        format = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if format > _FIRST_FORMAT:
            raise _newer(str(format))
        if format == _FIRST_FORMAT:
            command.stamp(config, _FIRST)
    command.upgrade(config, "head")


def _newer(found: str) -> WorkspaceError:
    return WorkspaceError(
        f"the state database has format {found}, which this workbench does not know", hint="Upgrade llmops-workbench."
    )

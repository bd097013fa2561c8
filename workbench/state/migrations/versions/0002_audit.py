"""The audit chain in the place of events, approvals, and tags of prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workbench.state.audit import FIRST, line_digest
from workbench.state.migrations.append_only import append_only

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    audit = op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("alias", sa.String),
        sa.Column("from_version", sa.Integer),
        sa.Column("to_version", sa.Integer),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )
    events = sa.table(
        "events",
        *(sa.column(name) for name in ("id", "at", "kind", "name", "alias", "from_version", "to_version", "actor")),
        sa.column("detail", sa.JSON),
    )
    previous = FIRST
    connection = op.get_bind()
    for seq, event in enumerate(connection.execute(sa.select(events).order_by(events.c.id)).mappings(), 1):
        line = {"seq": seq, **{key: value for key, value in event.items() if key != "id"}, "previous": previous}
        previous = line_digest(line)
        connection.execute(sa.insert(audit).values(**line, digest=previous))
    op.drop_table("events")
    op.create_table(
        "approvals",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.String, primary_key=True),
        sa.Column("actor", sa.String, primary_key=True),
        sa.Column("at", sa.String, nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["name", "version"], ["artifact_versions.name", "artifact_versions.version"]),
    )
    op.create_table(
        "prompt_tags",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("tag", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["name", "version"], ["prompt_versions.name", "prompt_versions.version"]),
    )
    for table in ("audit", "approvals"):
        append_only(table)

"""What the audit's end was, counted apart from its lines; and no table that is only added to can be emptied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

FIRST = "sha256:" + "0" * 64
COUNTED = "UPDATE audit_end SET count = count + 1, head = NEW.digest"


def upgrade() -> None:
    op.create_table(
        "audit_end",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("head", sa.String, nullable=False),
    )
    op.execute(
        "INSERT INTO audit_end SELECT 1, count(*), "
        f"coalesce((SELECT digest FROM audit ORDER BY seq DESC LIMIT 1), '{FIRST}') FROM audit"
    )
    # By the database, so that a line that an older workbench adds is counted too.
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION workbench_audit_counted() RETURNS trigger AS $$ "
            f"BEGIN {COUNTED}; RETURN NULL; END; $$ LANGUAGE plpgsql"
        )
        op.execute(
            "CREATE TRIGGER audit_counted AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION workbench_audit_counted()"
        )
        op.execute(
            "CREATE TRIGGER audit_end_no_delete BEFORE DELETE ON audit_end "
            "FOR EACH ROW EXECUTE FUNCTION workbench_append_only()"
        )
        for table in ("artifact_versions", "audit", "approvals", "prompt_versions", "audit_end"):
            op.execute(
                f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION workbench_append_only()"
            )
        return
    op.execute(f"CREATE TRIGGER audit_counted AFTER INSERT ON audit BEGIN {COUNTED}; END")
    op.execute(
        "CREATE TRIGGER audit_end_no_delete BEFORE DELETE ON audit_end "
        "BEGIN SELECT RAISE(ABORT, 'audit_end is append-only'); END"
    )

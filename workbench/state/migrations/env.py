"""What Alembic runs: the migrations, on the connection that `state.migrate` gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()

"""State: names, versions, aliases and their history, in SQLite through SQLAlchemy."""

"""Schemas of the state database, one file a step."""

"""Rows on disk: journals and Parquet."""

"""Tuning: searching over index configurations, with a decision at the end."""

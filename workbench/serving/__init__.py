"""Serving: an artifact that answers over HTTP, from a workspace or from a bundle of its own."""

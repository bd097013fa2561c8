"""Engines that turn messages into text, and where their models come from."""

"""Data sets: reading, checking, splitting, storing and comparing them."""

"""Pipeline: everything that decides an answer, as one frozen object with a digest."""

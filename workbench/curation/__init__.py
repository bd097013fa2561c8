"""Curation: what is wrong with the rows of a data set, found, reported row by row, and put right in a new version."""

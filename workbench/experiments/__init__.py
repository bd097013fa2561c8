"""Experiments: run variants over a data set, score, plan and compare."""

"""Charts, tables and progress, for marimo, Jupyter and the terminal."""

"""Speed goals as commands: `python -m benchmarks.NAME` measures the workbench and a peer in the same run."""

"""Scripts that need nothing of the workbench: each runs in a process of its own and prints one JSON object."""

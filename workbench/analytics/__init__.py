"""The events of a workspace: calls, scores, runs, feedback, reviews and artifacts as views."""

"""Apps: the workspace's marimo notebooks for a team, behind a sign-in."""

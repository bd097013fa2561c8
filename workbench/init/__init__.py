"""Making a new workspace out of the files that come with the package."""

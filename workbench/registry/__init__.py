"""Registry: artifacts by digest, their names, versions and aliases, and the gate in front of them."""

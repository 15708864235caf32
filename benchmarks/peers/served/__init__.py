"""What runs in the peers' own environments: each module serves the same model its own way."""

"""Training of the two networks: losses, recipes, the loop, the command."""

"""Reading, finding, verifying and installing checkpoints."""

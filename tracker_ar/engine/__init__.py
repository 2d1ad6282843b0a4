"""How networks are executed: preparation for inference, CUDA graphs, precision."""

"""Training data: folders of annotated images, synthetic sequences, samples for the two networks."""

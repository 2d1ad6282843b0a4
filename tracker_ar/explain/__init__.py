"""What every stage of the tracker does in one frame, in pictures and numbers."""

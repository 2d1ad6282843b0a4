"""Tracking in one's own video: sources of frames, targets, the loop over the frames, and what is written."""

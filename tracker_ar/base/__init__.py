"""Base trackers: they find the target and give a box."""

"""The VOT side of the project: a TraX server around a tracker, and the modules that ``trackers.ini`` names."""

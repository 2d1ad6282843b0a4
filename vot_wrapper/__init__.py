"""The VOT side of the project: a TraX server around a tracker and the modules named in ``trackers.ini``."""

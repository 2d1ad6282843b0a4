"""The refiner behind other trackers: short programs to start from."""

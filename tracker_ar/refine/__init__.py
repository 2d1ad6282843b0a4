"""Refiners: they turn any base tracker's box into a precise mask or box."""

"""Rendered training data and rendered sequences."""

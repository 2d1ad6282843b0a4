"""Evaluation by the VOT toolkit: sequences, the toolkit's commands, tables and pictures."""

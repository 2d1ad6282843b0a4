"""Measuring time and memory, beside what the machine can do."""

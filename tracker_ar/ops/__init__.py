"""Operators that torch lacks, written in plain torch."""

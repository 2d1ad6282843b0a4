"""Published data sets in their published folder layouts, behind one small interface."""

"""Data sets as they lie on disk: one file for each layout, and the readers of file formats that they need."""

"""Writers of `tests/pictures.py` in each published layout: `write(root) -> Path`, one file a layout."""

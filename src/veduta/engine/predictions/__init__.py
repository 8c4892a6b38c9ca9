"""Predictions in files: what another program, or `veduta predict`, wrote about the images of a split."""

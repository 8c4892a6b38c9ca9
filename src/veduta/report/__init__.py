"""Report: a score, its proof and its pictures as one HTML page."""

"""Veduta reads scenes: classification, segmentation, joint detection + segmentation."""

__version__ = "0.1.0"

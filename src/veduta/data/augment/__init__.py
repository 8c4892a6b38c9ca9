"""What training makes of a sample: one file for each published augmentation, and what they share."""

"""Pure functions of tensors and arrays: resizing, boxes, priors, checksums."""

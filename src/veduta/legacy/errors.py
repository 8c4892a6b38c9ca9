"""The one error of all readers of checkpoints: that of the wire format, so that it may pass from there as it is."""

from veduta.ops.wire import WireError

CheckpointError = WireError

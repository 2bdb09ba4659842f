"""The durable, sealed queue of a device: samples, outgoing batches, grants and refusals."""

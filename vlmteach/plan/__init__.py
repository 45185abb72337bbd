"""What a run will cost before it starts: bytes, operations, seconds; no weight is read."""

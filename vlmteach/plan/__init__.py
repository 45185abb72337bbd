"""What a run will cost before it starts: bytes, operations and seconds, counted without a weight."""

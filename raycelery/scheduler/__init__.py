"""Which message goes to which executor, and when executors start and end: pure rules; no Ray, no clock, no I/O."""

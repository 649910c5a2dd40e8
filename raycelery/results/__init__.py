"""What callers do with results: wait with ``await``, have callbacks called, read those that cannot be loaded here."""

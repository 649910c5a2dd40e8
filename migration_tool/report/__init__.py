"""Reports: tables, JSON, GitHub annotations, an HTML page, diffs."""

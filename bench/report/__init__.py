"""Reports: tables on the terminal, a JSON file, an HTML page."""

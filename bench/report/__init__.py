"""What is made of the measurements: tables on the terminal, a JSON file, a page."""

"""One dispatcher per application: the Ray actor around the scheduler, with its socket, journal and store."""

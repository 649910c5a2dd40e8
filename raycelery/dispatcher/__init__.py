"""One dispatcher per application: queues, limits, lanes, and the actor around them."""

"""A project goes over to Ray while it runs, and back: old results, what its broker holds, both sides at once."""

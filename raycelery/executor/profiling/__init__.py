"""Measures the runs of an executor while right-sizing asks for it; nothing of it is imported otherwise."""

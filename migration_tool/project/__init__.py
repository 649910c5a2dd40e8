"""What the names of a project mean: which are applications, tasks, canvas functions, results."""

"""What a project's files tell about its tasks, before it is decided which of them are converted."""

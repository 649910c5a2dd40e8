"""Finding, reading and replacing the files of a project."""

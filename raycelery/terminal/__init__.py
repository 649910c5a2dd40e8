"""What the command lines of raycelery, its benchmarks and its codemod share: command groups, output, tables."""

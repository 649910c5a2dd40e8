"""What an application's processes and its dispatcher send each other."""

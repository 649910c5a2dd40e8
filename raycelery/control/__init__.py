"""Remote control of an application in direct mode."""

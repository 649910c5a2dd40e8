"""A process's side: its session with the dispatcher, the connection, and the results that arrive over it."""

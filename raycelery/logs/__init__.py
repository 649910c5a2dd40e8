"""What tasks print and log: its lines, and the files on the nodes that hold them."""

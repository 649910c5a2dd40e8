"""The Ray that a process uses: the cluster that is named, or one that it starts; and in a sentence why it cannot."""

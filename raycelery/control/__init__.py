"""An application's side of remote control: the ``ray://`` transport, beat, and what applications a cluster has."""

"""HTTP/JSON on a Unix socket: how an operator speaks with the daemon."""

"""The message submission agent: listening sockets, ESMTP sessions, authentication."""

"""What relayd decides, as pure functions and values. No I/O; time and randomness are passed in."""

"""What DNS says. `resolver` asks; what to ask, and what the answers mean, is `rules`."""

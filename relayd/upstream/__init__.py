"""Where mail goes next, and the one translator from what an upstream says to an Outcome."""

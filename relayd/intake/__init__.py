"""The one door for every message, bounces too: who may send it, what is added, its signature, its place in line."""

"""Chores that run once per cluster."""

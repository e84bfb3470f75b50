"""Bugs to be caught. None is in the product: a process gets one if this directory is on its PYTHONPATH and RELAYD_SEED
names it."""

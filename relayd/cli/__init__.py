"""The command line. Every noun is a module that talks to the control socket; `main` is the program."""

from relayd.cli.program import main

__all__ = ["main"]

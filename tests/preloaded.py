"""What a command needs, loaded once. Imported by the process that commands are forked off."""

from importlib import import_module

from relayd.cli.program import NOUNS

for _noun in NOUNS:
    import_module(f"relayd.cli.{_noun}")

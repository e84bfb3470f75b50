"""TOML to frozen settings. Known to the daemon and the command line alone; everything else is handed values."""

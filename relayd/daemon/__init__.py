"""The only wiring: supervisor, workers, HTTP endpoint, systemd notification."""

"""relayd: a self-hosted SMTP relay."""

__version__ = "0.1.0"

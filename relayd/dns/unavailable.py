"""What is raised where nothing is known."""

from relayd.errors import RelaydError


class DnsUnavailable(RelaydError):
    """DNS did not answer, or with an error: nothing is known."""

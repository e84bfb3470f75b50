"""The access tokens of an upstream, for whoever speaks to its provider."""

from relayd.upstream.granting import token_source

__all__ = ["token_source"]

"""Which upstreams log in with an access token. Asked of every upstream, so it needs none of what fetches tokens."""

from relayd.store.upstreams import UpstreamRecord


def logs_in_by_token(record: UpstreamRecord) -> bool:
    """Whether AUTH XOAUTH2 is how it logs in."""
    if record.mode == "xoauth2" or record.smtp_auth_mechanism == "XOAUTH2":
        return True
    has_grant = record.google_service_account_sealed is not None or record.oauth_refresh_token_sealed is not None
    return record.provider_type == "google_workspace" and (
        record.mode == "gmail_api" or (has_grant and record.smtp_password_sealed is None)
    )

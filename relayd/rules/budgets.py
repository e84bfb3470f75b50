"""What a send has to fit: the kinds of budgets, in words."""

from enum import StrEnum


class BudgetKind(StrEnum):
    """budgets.kind: who says the limit, and for how long it counts."""

    CLIENT_DAY = "client_day"
    DOMAIN_DAY = "domain_day"
    MAILBOX_DAY = "mailbox_day"
    MAILBOX_HOUR = "mailbox_hour"
    PROVIDER_DAY = "provider_day"
    PROVIDER_HOUR = "provider_hour"


class LimitWindow(StrEnum):
    """When a budget's units come back: all at the calendar's turn, or each after its own day or hour."""

    CALENDAR = "calendar"
    ROLLING = "rolling"

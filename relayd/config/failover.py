"""Settings of failover: when an upstream is left, and who tells whether another may take over."""

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from relayd.config.section import Seconds, Section


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError('an IP address such as "192.0.2.53"') from None


class BreakerSettings(Section):
    """When an upstream that fails is not used any more, and for how long."""

    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    window_seconds: Seconds = 60.0
    open_seconds: Seconds = 30.0
    open_longest_seconds: Annotated[Seconds, Field(validate_default=True)] = 600.0

    @field_validator("open_longest_seconds")
    @classmethod
    def _not_shorter(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("open_seconds", value):
            raise ValueError("a time not shorter than open_seconds")
        return value


class DnsSettings(Section):
    """Where to ask whether an upstream may take over a domain's mail."""

    nameservers: tuple[Annotated[str, AfterValidator(_address)], ...] = ()
    port: Annotated[int, Field(ge=1, le=65535)] = 53
    timeout_seconds: Seconds = 5.0

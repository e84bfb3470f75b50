"""The DKIM signatures of what arrived, judged by the records that relayd prints."""

from collections.abc import Mapping

import dkim

from tests.e2e.house import House


def printed_records(house: House, domain: str) -> dict[str, str]:
    """The DKIM records of `relayd domain records`: their values by their names."""
    items = house.json("domain", "records", domain)["items"]
    return {item["name"].rstrip("."): item["value"] for item in items if "_domainkey" in item["name"]}


def signed_part(delivered: bytes) -> bytes:
    """A message as relayd sent it: without the fields that those who delivered it wrote on top."""
    return delivered[delivered.index(b"DKIM-Signature:") :]


def verified_algorithms(message: bytes, records: Mapping[str, str]) -> list[str]:
    """The algorithms of the signatures, in order. Fails unless dkimpy accepts every one of them."""
    verifier, algorithms = dkim.DKIM(message), []
    for index in range(message.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")):
        assert verifier.verify(idx=index, dnsfunc=lambda name, **_: records[name.decode().rstrip(".")].encode())
        algorithms.append(verifier.signature_fields[b"a"].decode())
    return sorted(algorithms)

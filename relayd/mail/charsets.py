"""Decode octets in a charset that a stranger names: only by codecs that take linear time and do nothing else.

Python calls many things a text encoding: punycode and idna take time by the square, others run escapes.
"""

from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import cache

# By the names that Python gives its codecs.
_KNOWN = frozenset({
    "ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le", "utf-7",
    "iso8859-1", *(f"iso8859-{number}" for number in range(2, 17) if number != 12), "tis-620",
    "cp037", "cp437", "cp500", "cp720", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857", "cp858", "cp860", "cp861",
    "cp862", "cp863", "cp864", "cp865", "cp866", "cp869", "cp874", "cp1125", "cp1140",
    *(f"cp{number}" for number in range(1250, 1259)),
    "koi8-r", "koi8-u", "koi8-t", "kz1048", "ptcp154", "hp-roman8",
    "mac-arabic", "mac-croatian", "mac-cyrillic", "mac-farsi", "mac-greek", "mac-iceland", "mac-latin2", "mac-roman",
    "mac-romanian", "mac-turkish",
    "big5", "big5hkscs", "cp950", "gb2312", "gbk", "gb18030", "hz",
    "euc_jp", "euc_jis_2004", "euc_jisx0213", "shift_jis", "shift_jis_2004", "shift_jisx0213", "cp932", "iso2022_jp",
    "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3", "iso2022_jp_ext",
    "euc_kr", "cp949", "johab", "iso2022_kr",
})  # fmt: skip


def decoded(octets: bytes, charset: str, errors: str) -> str | None:
    """The text; None for a charset that is not known, or octets that are not in it under `errors` strict."""
    codec = _names().get(normalize_encoding(charset[:40]).lower())
    if codec is None:
        return None
    try:
        return octets.decode(codec, errors)
    except ValueError:
        return None


@cache
def _names() -> dict[str, str]:
    """Every name of a known codec. A lookup of any other is never made: Python would remember each that fails."""
    names = {normalize_encoding(name).lower(): name for name in _KNOWN} | {"latin_1": "iso8859-1"}
    for alias, module in aliases.items():
        codec = names.get(module)
        if codec is not None:
            names[alias] = codec
    return names

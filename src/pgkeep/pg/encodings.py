"""PostgreSQL's names of encodings, and Python's codecs for them."""

from __future__ import annotations

from typing import Final

_CODECS: Final = {
    "EUC_CN": "gb2312", "EUC_JP": "euc_jp", "EUC_JIS_2004": "euc_jis_2004", "EUC_KR": "euc_kr",
    "SHIFT_JIS_2004": "shift_jis_2004", "SJIS": "cp932", "BIG5": "cp950", "GBK": "gbk", "GB18030": "gb18030",
    "UHC": "cp949", "JOHAB": "johab", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "WIN866": "cp866", "WIN874": "cp874",
    "ISO_8859_5": "iso8859_5", "ISO_8859_6": "iso8859_6", "ISO_8859_7": "iso8859_7", "ISO_8859_8": "iso8859_8",
    "LATIN1": "iso8859_1", "LATIN2": "iso8859_2", "LATIN3": "iso8859_3", "LATIN4": "iso8859_4", "LATIN5": "iso8859_9",
    "LATIN6": "iso8859_10", "LATIN7": "iso8859_13", "LATIN8": "iso8859_14", "LATIN9": "iso8859_15",
    "LATIN10": "iso8859_16",
    **{f"WIN{number}": f"cp{number}" for number in range(1250, 1259)},
}  # fmt: skip


def codec_of(encoding: str) -> str:
    """Python's codec; UTF-8 for UTF8, and for what has no characters (SQL_ASCII) or no codec here."""
    return _CODECS.get(encoding.upper(), "utf-8")

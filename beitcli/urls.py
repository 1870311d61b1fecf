"""URLs as records, ledgers and messages show them: without passwords and signatures."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

_USER = re.compile(r"^(https?://)[^/?#]*@", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """A way of signing a URL: names of parameters in lower case, by which it is recognised and which belong to it.

    `prefix` is that of further names that belong to it.
    """

    marks: frozenset[str]
    others: frozenset[str] = frozenset()
    prefix: str | None = None

    def owns(self, name: str) -> bool:
        return name in self.marks or name in self.others or (self.prefix is not None and name.startswith(self.prefix))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AZURE = _names("st sp sr spr sip ss srt sdd ses skoid sktid skt ske sks skv saoid suoid scid tn spk srk epk erk")
_SCHEMES = (
    _Scheme(_names("x-amz-signature"), prefix="x-amz-"),  # AWS, version 4
    _Scheme(_names("awsaccesskeyid signature expires"), _names("x-amz-security-token")),  # AWS, version 2
    _Scheme(_names("key-pair-id signature"), _names("expires policy hash-algorithm")),  # CloudFront
    _Scheme(_names("x-goog-signature"), prefix="x-goog-"),  # Google Cloud Storage, version 4
    _Scheme(_names("googleaccessid signature expires")),  # Google Cloud Storage, version 2
    _Scheme(_names("sv sig se"), _AZURE | {"si"}),  # Azure, a shared access signature
    _Scheme(_names("sv sig si"), _AZURE),  # … whose end is in a stored policy
)


def without_secrets(url: str) -> str:
    """The http(s) URL without user, password and signature; all else is as it was typed."""
    url, hash_sign, fragment = _USER.sub(r"\1", url).partition("#")
    address, _, query = url.partition("?")
    parts = query.split("&")
    names = [unquote_plus(part.partition("=")[0]).lower() for part in parts]
    signed_by = [scheme for scheme in _SCHEMES if scheme.marks <= set(names)]
    if signed_by:
        kept = [part for part, name in zip(parts, names, strict=True) if not any(by.owns(name) for by in signed_by)]
        url = "?".join([address, "&".join(kept)] if kept else [address])
    return url + hash_sign + fragment

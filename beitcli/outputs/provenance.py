"""Provenance of records: the model, and the versions of `beit` that computed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provenance:
    """Name of a model, digest of its files, and the versions of `beit` that computed the results."""

    model: str
    digest: str
    versions: tuple[str, ...]

    def metadata(self) -> dict[str, str]:
        """Key-value metadata of a Parquet file, without times: unchanged records give the same bytes."""
        return {"model": self.model, "model_digest": self.digest, "beit_version": ", ".join(self.versions)}

    @classmethod
    def of_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> "Provenance | None":
        """Inverse of `metadata`; None for a file that names no model."""
        try:
            model, digest, versions = ((metadata or {})[key].decode() for key in _KEYS)
        except (KeyError, UnicodeDecodeError):
            return None
        return cls(model, digest, tuple(filter(None, versions.split(", "))))


_KEYS = (b"model", b"model_digest", b"beit_version")


def common(parts: Sequence[Provenance | None]) -> Provenance | None:
    """The provenance of all parts together; None if they are not all of one model."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({(part.model, part.digest) for part in known}) != 1:
        return None
    versions = sorted({version for part in known for version in part.versions})
    return Provenance(known[0].model, known[0].digest, tuple(versions))

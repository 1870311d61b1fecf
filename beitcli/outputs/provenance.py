"""Provenance of records: the model, and the versions of `beit` that computed them."""

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

"""The WordNet ids of ImageNet's classes (the README beside the lists gives their source)."""

import gzip
from importlib.resources import files

from beitcli.model.catalog import DELETED_22K, LABELS_22K

_LABELS_1K = 1_000


def wordnet_ids(outputs: int) -> tuple[str, ...]:
    """The id of each output of a model with as many outputs as ImageNet has classes; empty for any other number."""
    if outputs in (_LABELS_1K, LABELS_22K):
        return _listed(outputs)
    if outputs == LABELS_22K - len(DELETED_22K):
        return tuple(each for index, each in enumerate(_listed(LABELS_22K)) if index not in DELETED_22K)
    return ()


def _listed(count: int) -> tuple[str, ...]:
    packed = files("beitcli.evaluation").joinpath("ids", f"imagenet-{count}.txt.gz").read_bytes()
    return tuple(gzip.decompress(packed).decode().split())

"""The benchmark's report and its tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from beitcli.bench.agreement import Agreement
from beitcli.bench.ceiling import Ceiling
from beitcli.bench.clock import Timing
from beitcli.bench.decoding import DecodingRates
from beitcli.bench.images import MeasuredImages
from beitcli.bench.machine import Machine
from beitcli.bench.model import ModelRate
from beitcli.bench.processes import StartUp, WholeRuns
from beitcli.bench.recommendation import Recommendation
from beitcli.bench.shapes import Shape
from beitcli.bench.versus import Duel
from beitcli.model.runtime import Runtime
from beitcli.tables import Table


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Results of one benchmark, each with all its times. Rates in images or GFLOP per second."""

    version: str
    shape: Shape
    gflop_per_image: float
    machine: Machine
    images: MeasuredImages
    ceilings: list[Ceiling]
    models: list[ModelRate]
    agreements: list[Agreement]
    decoding: DecodingRates
    start_up: StartUp
    batch: WholeRuns
    duels: list[Duel]
    recommendation: Recommendation


def tables(report: Benchmark) -> Iterator[Table]:
    """The report as tables: machine, upper bounds, measurements, recommendation."""
    yield Table("Machine", ("", ""), _machine(report))
    yield Table("Ceiling", ("dtype", "matrix product", "linear maps, batch 16"), [_ceiling(c) for c in report.ceilings])
    by_batch = ("dtype", "batch", "images/s", "GFLOP/s", "of its linear maps")
    yield Table("Model alone", by_batch, [_model(rate) for rate in report.models])
    columns = ("dtype", "largest logit difference, share of range", "same best label")
    yield Table(
        f"Against fp32, {report.agreements[0].images} images", columns, [_agreement(a) for a in report.agreements]
    )
    yield Table("Decoding, one worker", ("", "images/s"), _decoding(report.decoding))
    yield Table("Start-up", ("", "seconds"), _start_up(report.start_up))
    rates = ("images/s", "without start-up")
    yield Table("From files", ("", *rates), [("beit batch", *_rates(report.batch))])
    if report.duels:
        yield Table(
            "Against others", ("alternating runs", *rates), [row for duel in report.duels for row in _duel(duel)]
        )
    advice = report.recommendation
    yield Table("Recommendation", ("", ""), [("options", advice.options), ("bottleneck", advice.limit)])


def _machine(report: Benchmark) -> list[tuple[str, ...]]:
    machine, images, shape = report.machine, report.images, report.shape
    origin = "synthetic" if images.synthetic else f"yours, {images.left_out} more could not be read"
    return [
        ("processor", machine.processor),
        ("cores, threads", f"{machine.cores}, {machine.threads}"),
        ("bf16", "faster than fp32" if machine.fast_bf16 else "no faster than fp32"),
        ("device", f"{machine.device}: {machine.gpu}" if machine.gpu else machine.device),
        ("beit, torch, Python", f"{report.version}, {machine.torch}, {machine.python}"),
        ("model", f"{shape.name}, random weights, {report.gflop_per_image:.1f} GFLOP per image"),
        ("images", f"{images.count} of {images.median_bytes / 1000:.0f} KB, {origin}"),
    ]


def _ceiling(ceiling: Ceiling) -> tuple[str, ...]:
    linears = f"{ceiling.linears.per_second:.0f} GFLOP/s{', packed' if ceiling.packed else ''}"
    return ceiling.dtype, f"{ceiling.product.per_second:.0f} GFLOP/s", linears


def _model(rate: ModelRate) -> tuple[str, ...]:
    images = f"{rate.images.per_second:.2f}"
    return _kind(rate.runtime), str(rate.batch_size), images, f"{rate.gflops:.0f}", f"{rate.share:.0%}"


def _agreement(agreement: Agreement) -> tuple[str, ...]:
    return _kind(agreement.runtime), f"{agreement.largest:.2g}", f"{agreement.same_label:.1%}"


def _kind(runtime: Runtime) -> str:
    return f"{runtime.dtype}{', compiled' if runtime.compiled else ''}"


def _decoding(rates: DecodingRates) -> list[tuple[str, ...]]:
    return [("full", f"{rates.full.per_second:.1f}"), ("--fast-decode", f"{rates.fast.per_second:.1f}")]


def _start_up(times: StartUp) -> list[tuple[str, ...]]:
    named: tuple[tuple[str, Timing], ...] = (
        ("beit --version", times.version),
        ("import torch", times.import_torch),
        ("beit classify, one image", times.one_photo),
    )
    return [(name, f"{timing.median:.2f}") for name, timing in named]


def _rates(runs: WholeRuns) -> tuple[str, str]:
    return f"{runs.images.per_second:.2f}", f"{runs.reported_median:.2f}"


def _duel(duel: Duel) -> Iterator[tuple[str, ...]]:
    yield (f"beit batch {duel.options}".rstrip(), *_rates(duel.ours))
    yield (f"{duel.rival} {duel.version}, {duel.setting}", *_rates(duel.theirs))
    yield ("ours over theirs", f"{duel.ratio:.2f} ×", f"{duel.ratio_reported:.2f} ×")

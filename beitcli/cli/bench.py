"""`beit bench`: the speed on this machine, and recommended options."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from beitcli.bench.clock import FULL, SMALL
from beitcli.bench.shapes import PUBLISHED, TINY
from beitcli.bench.versus import RIVALS, check_rivals
from beitcli.cli import notices
from beitcli.cli.options import examples
from beitcli.errors import UsageError
from beitcli.inputs.sources import Walk, discover
from beitcli.jobs.requests import Compute
from beitcli.model.cpu.cores import usable_cores
from beitcli.records import Skipped
from beitcli.tables import show

EXAMPLES = examples(
    "beit bench",
    "beit bench ~/photos --shape large-384",
    "beit bench --vs transformers --vs openvino",
    "beit bench --json -q > here.json",
)


def bench(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...", help="Images as for `classify` [default: generated ones].", show_default=False
        ),
    ] = None,
    shape: Annotated[
        str,
        typer.Option(metavar="|".join(PUBLISHED), help="Model to measure, with random weights: nothing is downloaded."),
    ] = "base-224",
    vs: Annotated[
        list[str] | None,
        typer.Option("--vs", metavar="|".join(RIVALS), help="Compare with this on the same images (repeatable)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object: every figure with all its timings.", show_default=False)
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", envvar="BEIT_DEVICE", help="Where the model runs.")
    ] = "auto",
    images: Annotated[
        int, typer.Option("--images", "-n", metavar="N", min=1, help="Generate N images, or take the first N of INPUT.")
    ] = 200,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices; errors only.", show_default=False)] = False,
) -> None:
    """Measure the speed on this machine and recommend options."""
    notices.set_up(quiet, verbose=False)
    shapes = PUBLISHED | {TINY.name: TINY}
    if shape not in shapes:
        raise UsageError(f"--shape {shape}: no such shape", f"one of {', '.join(PUBLISHED)}")
    Compute(device=device).check()
    rivals = tuple(vs or ())
    check_rivals(rivals)
    found = discover(inputs, (), Walk(), Skipped()) if inputs else None
    from beitcli.bench.measure import BenchmarkPlan, measure
    from beitcli.bench.report import tables

    effort = SMALL if shape == TINY.name else FULL
    report = measure(found, BenchmarkPlan(shapes[shape], device, rivals, images, usable_cores(), effort))
    if as_json:
        print(json.dumps(asdict(report)))  # noqa: T201
    else:
        show(tables(report))

"""Validation of a trained model: its predictions as `beit eval` makes them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from beitcli.jobs.engine import RunContext, plan_of, predict_records
from beitcli.jobs.observer import Observer
from beitcli.jobs.requests import Compute, Inputs, Limits, ModelChoice, Request
from beitcli.jobs.tasks import classification_task
from beitcli.model.checkpoint import open_checkpoint
from beitcli.records import Found
from beitcli.timings import Timings
from beitcli.workers.messages import Chosen

if TYPE_CHECKING:
    from beitcli.training.validation import ModelPredictions


@dataclass(frozen=True, slots=True)
class Validator:
    """Predictions of a saved model by the very path of `beit eval`, so that both find the same accuracy."""

    limits: Limits
    compute: Compute
    observer: Observer

    def __call__(self, folder: str, found: Sequence[Found]) -> "ModelPredictions":
        """The predictions of the model in `folder`, one record per image. Raises ModelError, DeviceError."""
        from beitcli.training.validation import ModelPredictions

        compute = replace(self.compute, batch_size=None)  # that of a training is no batch size of an evaluation
        request = Request(Inputs(), self.limits, ModelChoice(folder), compute)
        task = classification_task("eval", open_checkpoint(folder, None), request.labels.top_k)
        decided: list[Chosen] = []

        def decide(chosen: Chosen) -> Chosen:
            decided.append(chosen)
            return chosen

        context = RunContext(Timings(), decide, on_workers=self.observer.workers)
        self.observer.stage("validation", len(found))
        records = []
        with closing(predict_records(iter(found), plan_of(request, task, padded=True), context)) as batches:
            for batch in batches:
                records += batch
                self.observer.progress(len(batch))
        [chosen] = decided
        return ModelPredictions(records, f"{chosen.dtype} on {chosen.device}")

"""Requests: every field has its option on the command line, nothing else is an option of theirs."""

from dataclasses import fields

import pytest

from beitcli.cli.options import FLAGS
from beitcli.jobs import requests
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Resume

RECORDS = (Inputs, Limits, ModelChoice, Compute, Labels, Resume)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_has_its_option(record: type) -> None:
    assert list(FLAGS[record]) == [field.name for field in fields(record)]


def test_every_record_of_a_request_has_options() -> None:
    parts = {field.type for field in fields(requests.Request)} - {str}
    assert {record for record in RECORDS if record.__name__ in map(str, parts) or record in parts} == set(FLAGS)

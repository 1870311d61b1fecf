"""Imports of every worker, done once in the process from which the workers of this machine are forked.

It has neither a thread nor a device of its own.
"""

import gc

import beitcli.pipeline
import beitcli.workers.worker  # noqa: F401

gc.freeze()  # else each worker would copy the memory of all objects to look through them

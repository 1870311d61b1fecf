"""Runs without a command line: what a command, a notebook or a thread can start. Nothing here prints or exits."""

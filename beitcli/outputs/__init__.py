"""Record output: formats and files."""

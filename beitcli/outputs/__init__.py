"""Record output: formats, files and the ledger."""

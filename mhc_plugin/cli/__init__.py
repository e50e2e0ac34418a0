"""Arguments, one-sentence errors and tables: what the tools share."""

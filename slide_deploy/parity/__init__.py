"""The parity engine: probes, expectations, comparison. Needs numpy only."""

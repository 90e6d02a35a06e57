"""The parity engine: probes, expectations, comparison. Pure numpy; knows no runtime."""

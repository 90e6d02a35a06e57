"""Exporters, one file per target, which defines `EXPORTER`. They import no other one."""

"""Runtimes, one file per target, which defines `RUNTIME`. They import no other one."""

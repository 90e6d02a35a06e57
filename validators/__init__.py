"""One file per target; each defines `RUNTIME`. None of them knows another, or an exporter."""

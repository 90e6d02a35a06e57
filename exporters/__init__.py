"""One file per target; each defines `EXPORTER`. None of them knows another, or a validator."""

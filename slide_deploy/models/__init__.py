"""Model families: one file each, with how its checkpoints are recognised."""

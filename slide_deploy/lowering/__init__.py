"""Equal forms of Slide Attention, one per file; none of them knows a target."""

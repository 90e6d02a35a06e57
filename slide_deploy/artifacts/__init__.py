"""What an export writes: artifacts, manifest, golden vectors."""

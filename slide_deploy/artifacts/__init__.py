"""The files of an export: artifacts, manifest, golden vectors."""

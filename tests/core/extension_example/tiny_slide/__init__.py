"""A third party's family and target for slide-deploy: see docs/extending.md."""

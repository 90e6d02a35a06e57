"""The smallest pieces of artifacts that compute something wrong, one file per target."""

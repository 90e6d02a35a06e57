"""coremltools' own tests, run on Linux: the MIL interpreter stands where Core ML would."""

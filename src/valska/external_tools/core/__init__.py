"""The shared core: bundles, job scripts, schedulers and images. It knows no tool."""

"""Sweeps: many runs that differ in a few values, made, sent and followed as one."""

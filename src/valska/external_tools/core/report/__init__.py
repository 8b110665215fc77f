"""Reports: what runs, sweeps and whole roots of them found, side by side."""

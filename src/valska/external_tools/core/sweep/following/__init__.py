"""What became of each point: what was sent, the scheduler, and the jobs' own records."""

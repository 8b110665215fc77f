"""What valska costs, as ratios and differences to a floor measured in the same run."""

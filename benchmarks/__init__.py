"""What each path costs, as ratios within one run: these are read by people, never asserted by a test."""

"""Long runs: `make endurance`. The short ones, in `make test`, use the same census and the same rounds."""

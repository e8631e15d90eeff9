"""Convert between the domain's values and zap.v1's messages. Pure: no input or output, no await."""

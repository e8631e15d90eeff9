"""Between the domain's values and zap.v1 messages."""

"""zapctl, the operator's tool."""

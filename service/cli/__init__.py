"""zapctl, the operator's tool. It depends only on the protos of the service."""

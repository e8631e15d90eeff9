"""zapctl, the operator's tool. It knows the protos and nothing else of the service."""

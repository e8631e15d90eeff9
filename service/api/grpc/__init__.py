"""The gRPC servers: the callers' API and the API between nodes."""

"""gRPC: what callers say, in and out."""

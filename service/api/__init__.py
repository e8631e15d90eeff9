"""The service's APIs."""

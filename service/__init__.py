"""zap-service: WhatsApp sessions as a service. docs/architecture.md says how it is built."""

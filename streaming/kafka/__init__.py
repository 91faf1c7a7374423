"""Kafka: the embedded broker, reading and sending, and the one transactional publisher."""

"""The data path: from Kafka through Spark and Delta to alerts on Kafka."""

"""The cluster's metadata: its records in Kafka's format, the immutable image, and the delta that changes it. Pure."""

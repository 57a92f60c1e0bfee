//! Bounds-checked reading and writing of the primitive types of the Kafka protocol.

//! The metadata quorum: raft over a log in the format of Kafka.

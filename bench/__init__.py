"""The same load, from Kafka's own perf tools, on Apache Kafka and on Ottla, in one run on one machine."""

"""Reading and verifying a data directory without a server. Nothing here writes."""

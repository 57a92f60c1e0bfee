"""What the leader of a partition does for share groups (KIP-932): who has which records, and what became of them."""

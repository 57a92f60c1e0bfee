"""The share coordinator: how far share groups are in each partition, in `__share_group_state` (KIP-932). Pure."""

"""The group coordinator: classic consumer groups and the offsets that groups commit."""

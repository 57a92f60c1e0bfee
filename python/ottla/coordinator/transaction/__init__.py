"""Transactions: what a transactional id may do next, as a machine over `__transaction_state`."""

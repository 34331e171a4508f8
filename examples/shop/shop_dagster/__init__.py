"""A code location around the shop's warehouse: what feeds it, what runs it, what reads it."""

"""The vocabularies: what is measured, what the host told us, what we say. No I/O, no clock."""

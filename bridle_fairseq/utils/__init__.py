"""Helpers without a domain: errors, files, collectives, precision, memory."""

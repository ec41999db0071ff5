"""General helpers: errors, files, devices, collectives, precision, memory, optional imports."""

"""The ``bridle`` command: a module for each subcommand, which parses, calls the library and prints."""

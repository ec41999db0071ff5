"""Exports behind the interfaces of other libraries: a module for each, which imports that library."""

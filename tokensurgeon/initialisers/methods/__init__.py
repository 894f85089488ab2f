"""The built-in methods, one short file per family."""

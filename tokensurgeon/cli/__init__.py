"""The command line: one file per command, no arithmetic.

Each command is the click object ``command`` of its module; `main` imports the module when the
command is called, and turns every error into one line and an exit code.
"""

"""The command line: its options, and its reports for people and programs."""

"""The command line: what is asked, and what a person or a program reads."""

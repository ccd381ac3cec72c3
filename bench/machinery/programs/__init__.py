"""Programs that run in processes of their own.

Each is started by its path and imports nothing of this project, so that nothing else is measured.
"""

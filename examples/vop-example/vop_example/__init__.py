"""Example of a package that extends vop: a method, a head, a backbone and a dataset reader.

Copy the file that you need. `pyproject.toml` gives each of them its name.
"""

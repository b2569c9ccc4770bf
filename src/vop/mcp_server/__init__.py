"""Libraries for assistants: a server of the Model Context Protocol over standard input and output.

tools.py      what assistants can do: search, describe a library, look at a moment, export a clip
arguments.py  a parameter for each filter, and none that a tool does not know
server.py     these tools in the official SDK, which the extra `mcp` installs
"""

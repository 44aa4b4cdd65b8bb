"""One endpoint in front of any number of servers of the Model Context Protocol, which get the keys that agents do not.

Each server runs apart from the others, bounded in what it may send; each use of a tool is decided at the door for the
agent that calls it; nothing that a server says reaches an agent before its credentials were taken out.
"""

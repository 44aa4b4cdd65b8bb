"""Shelf: where a repo vault travels. A member takes the files of a change to where others find them."""

MEMBERS = ("git",)

"""A static site of a catalog's worlds: pages for people, without a server."""

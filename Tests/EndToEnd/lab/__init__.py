"""A namespace that plays the Internet, with real servers in it, and what runs programs with and without enforcement."""

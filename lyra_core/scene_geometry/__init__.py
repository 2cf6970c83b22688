"""What a robot needs to know of a world: where the floor is, which way is up, what is in the way, and its surface."""

"""Files: storage, PLY, video, cameras and images."""

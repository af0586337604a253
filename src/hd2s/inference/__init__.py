"""From frames to maps and files."""

"""What a host offers its applications beside running them, one service in each module."""

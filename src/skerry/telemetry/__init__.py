"""What is measured on hosts: read, counted by windows of event time, sketched, kept within bounds, asked for."""

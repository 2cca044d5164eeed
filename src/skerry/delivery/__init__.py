"""What crosses a weak link: how new content is written as its difference to what a host holds, and read back."""

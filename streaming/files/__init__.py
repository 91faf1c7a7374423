"""Events and labels out of files: opened, understood and brought to rows."""

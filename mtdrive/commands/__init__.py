"""One module per verb of the command line: reads its configuration, calls the library, prints a summary."""

"""One module per subcommand of the command line; each is also callable from Python."""

"""The lyra command, one file per subcommand."""

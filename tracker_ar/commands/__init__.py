"""Every subcommand of `alpharefine`, one file each."""

"""The commands of the command line, one a module; `swarm.app.cli` lists them."""

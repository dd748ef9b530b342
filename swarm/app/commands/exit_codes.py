"""How a command ends, besides 0, where everything went well."""

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

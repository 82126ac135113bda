"""The subcommands of `vlc`: each parses its arguments and calls one public function.

Heavy modules are imported inside the commands: data workers import these files too.
"""

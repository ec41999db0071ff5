"""Have forker.py run a command in this process's folder, environment and output: relay.py PORT COMMAND [ARGUMENT ...].

Exits with its code.
"""

import json
import os
import socket
import sys

port, *argv = sys.argv[1:]
output, errors = (f"/proc/{os.getpid()}/fd/{number}" for number in (1, 2))
request = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ), "log": output, "errors": errors}
with socket.create_connection(("127.0.0.1", int(port))) as connection, connection.makefile("rw") as file:
    print(json.dumps(request), file=file, flush=True)
    sys.exit(int(file.readline()))

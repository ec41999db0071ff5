"""The process that starts commands ends with the session, whoever else holds its standard input."""

import subprocess


def test_another_process_may_hold_its_standard_input(forker):
    another = type(forker)()
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[another.process.stdin.fileno()])
    try:
        another.end()
        assert another.process.returncode == 0
    finally:
        holder.kill()
        holder.wait()

#!/bin/sh
# Starts the plugin with a Python @MINOR@ of PATH. All else that it needs is in lib/, compiled for that Python.
for name in python@MINOR@ python3 python; do
  # A name on PATH may be a stub that runs nothing or another program, or lead to another version.
  python=$("$name" -I -S -c 'import sys
if "%d.%d" % sys.version_info[:2] == "@MINOR@":
    print(sys.executable)' 2>/dev/null)
  if [ -x "$python" ]; then
    exec "$python" -I -S -c '
import os, sys
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(sys.argv.pop(1))), "lib"))
from replicator.plugin.__main__ import main
main()' "$0" "$@"
  fi
done
echo "pulumi-resource-replicator needs Python @MINOR@ on PATH and finds none [RPL-PLUGIN-PYTHON]
  → install Python @MINOR@, or the tarball of this plugin for the Python that is there: cp312 in its name stands for 3.12" >&2
exit 1

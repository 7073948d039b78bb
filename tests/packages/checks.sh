# What the steps of tests/packages/run share; they are run by it on a bare Debian, as root.

# check NAME COMMAND...: one check; its result goes to the step's file, its output to the log.
check() {
  local name=$1 log
  shift
  log=$(mktemp)
  echo "-- $name"
  if "$@" >"$log" 2>&1; then
    printf 'pass\t%s\t\n' "$name" >>"$checks"
  else
    printf 'fail\t%s\t%s\n' "$name" "$(tail -c 600 "$log" | tr '\n\t' '  ')" >>"$checks"
  fi
  cat "$log"
  rm -f "$log"
}

apt() { apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null; }

# A throw-away system need not survive a power cut.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io

# archive.sh DIRECTORY PATH NAME: keep a finished segment of the log, for good and in one step.
# PostgreSQL may offer one again; what is there already must be the same.
set -eu
if [ -f "$1/$3" ]; then
    exec cmp --silent "$2" "$1/$3"
fi
cp "$2" "$1/.$3.new"
sync "$1/.$3.new"
mv "$1/.$3.new" "$1/$3"
sync "$1"

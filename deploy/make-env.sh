#!/bin/sh
# Writes .env for docker-compose.yml: .env.example with a random secret of 192 bits after every `NAME=` without a value.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo "there is a .env already: its secrets open the data that is there, so it is not replaced" >&2
    exit 1
fi
umask 077
trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
    case $line in
    \#* | *=?*) ;;
    *=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
    esac
    printf '%s\n' "$line"
done < .env.example > .env.new
mv .env.new .env
echo "wrote $(pwd)/.env"

#!/bin/sh
# The quickstart: the programs a user has, in the order a user runs them.
set -eu

run() {
    printf '\n$'
    for word in "$@"; do
        case "$word" in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$@"
}

recipe=recipes/quickstart_digits.yaml
tuned=runs/quickstart_digits
merged=merged/quickstart_digits
rm -rf "$tuned" "$merged"

run python tools/digits.py data/digits
run python -m qvft.eval qvft/tiny-blip2 --recipe "$recipe"
run python -m qvft.train "$recipe"
run python -m qvft.merge "$tuned" "$merged"
run python -m qvft.predict "$merged" data/digits/images/000[0-3].png --question 'Which digit is written?'
run python -m qvft.eval "$tuned"
printf '\nreport: %s\nmerged model: %s\n' "$tuned/eval/digits-test/report.html" "$merged"

#!/usr/bin/env bash
# Run by action.yml: calls slide-deploy with the action's inputs (as variables), adds its Markdown to
# the job summary, annotations for failed artifacts and its verdict to the outputs, and exits with its
# exit code.
set -euo pipefail

# Later steps need a verdict, however the script ends.
write_verdict() {
  case $? in 0) verdict=pass ;; 1) verdict=fail ;; 3) verdict=not_run ;; *) verdict=error ;; esac
  printf 'verdict=%s\n' "$verdict" >>"$GITHUB_OUTPUT"
}
trap write_verdict EXIT

summary="$RUNNER_TEMP/slide-deploy.md"
found="$RUNNER_TEMP/slide-deploy.json"
log="$RUNNER_TEMP/slide-deploy.log"
rm -f "$summary" "$found"
mkdir -p "$OUTPUT" || exit 2

arguments=()
if [ -n "$ARTIFACTS" ]; then
  arguments+=(verify)
  [ -z "$MODEL" ] || arguments+=(--against "$MODEL")
  arguments+=(--report "$OUTPUT/report.html" --report "$OUTPUT/report.json")
else
  [ -n "$MODEL$CONFIG" ] || { echo "::error::set the input model or config to export, or artifacts to verify"; exit 2; }
  arguments+=(export --output "$OUTPUT")
  if [ -n "$CONFIG" ]; then
    arguments+=(--config "$CONFIG")
  else
    arguments+=(--precision "$PRECISION")
    read -ra targets <<<"${TARGETS:-all}"
    for target in "${targets[@]}"; do arguments+=(--target "$target"); done
  fi
fi
[ -z "$IMAGE_SIZE" ] || arguments+=(--image-size "$IMAGE_SIZE")
[ -z "$CALIBRATION" ] || arguments+=(--calibration "$CALIBRATION")
[ -z "$BASELINE" ] || arguments+=(--baseline "$BASELINE")
arguments+=(--report "$summary" --report "$found" --report "$OUTPUT/report.xml" --)
if [ -n "$ARTIFACTS" ]; then
  while IFS= read -r artifact; do
    [ -z "$artifact" ] || arguments+=("$artifact")
  done <<<"$ARTIFACTS"
elif [ -n "$MODEL" ]; then
  arguments+=("$MODEL")
fi

code=0
# Standard error goes to the log of the job as well; the exit code is that of slide-deploy.
{ slide-deploy "${arguments[@]}" 2>&1 >&3 | tee "$log" >&2; } 3>&1 || code=$?
python "$(dirname "$0")/annotate.py" "$found" "$log" || true

if [ -f "$summary" ]; then
  cat "$summary" >>"$GITHUB_STEP_SUMMARY"
  printf 'report=%s\n' "$OUTPUT/report.html" >>"$GITHUB_OUTPUT"
fi
exit "$code"

# Sourced by the recipes, not run: how they go on where they were broken off.

# keep_settings OUTPUT SETTINGS: what no folder is named after must stay as it was, else results of two settings would be
# mixed.
keep_settings() {
  local file="$1/settings.txt"
  mkdir -p "$1"
  if [[ -f "$file" && "$(<"$file")" != "$2" ]]; then
    echo "$1 holds a run with other settings ($file); choose another OUTPUT" >&2
    exit 2
  fi
  echo "$2" >"$file"
}

# done_before FILE: each stage writes this file last.
done_before() { [[ -f "$1" ]] && echo "$1 is there: nothing to do"; }

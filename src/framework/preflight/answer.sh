# Common to all preflights; runs in the application's own image, by whatever POSIX shell is there.
answer_file=/dev/termination-log
facts=

# quoted TEXT: as a JSON string, without control characters.
quoted() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/["\\]/\\&/g')"; }

# fact NAME VALUE
fact() { facts="$facts${facts:+,}$(quoted "$1"):$(quoted "$2")"; }

# variable NAME: a fact if the environment has it, also empty.
variable() {
  if eval "[ -n \"\${$1+set}\" ]"; then
    eval "fact \"env.$1\" \"\$$1\""
  fi
}

passed() { printf '{"facts":{%s}}\n' "$facts" >"$answer_file"; exit 0; }

# missing WHAT REMEDY
missing() {
  printf '{"missing":%s,"remedy":%s}\n' "$(quoted "$1")" "$(quoted "$2")" >"$answer_file"
  exit 0
}

# first PATTERN…: the first that is there.
first() {
  for candidate; do
    if [ -e "$candidate" ]; then
      printf '%s' "$candidate"
      return
    fi
  done
}

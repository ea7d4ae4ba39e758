# What archive_command runs first (POSIX shell): the answer of wal/marker.py without an interpreter's start.
#
# The server's shell reads this file after `set -- PROGRAM ... wal push FILE`.  It ends with 0 when FILE's marker shows
# that the repository holds it; in every other case, doubt included, it becomes that program.
#
# 1. It asks for what docs/format/markers.md asks for: the same boot, words, HOME and working directory, no PGKEEP_*
#    variable, and equal stamps of FILE and of every file that the marker names.
# 2. It reads a marker up to the line "." and needs nothing behind it; a shorter file is no marker.
# 3. One process is started (GNU stat).  Where another `stat` answers, nothing is equal, and the program is run.

pgkeep_archived() {
    for pgkeep_file; do :; done
    pgkeep_marker=${pgkeep_file%/*}/pgkeep.ahead/${pgkeep_file##*/}
    [ -r "$pgkeep_marker" ] || return 1
    pgkeep_words="$# $*"
    pgkeep_compare "${pgkeep_words%"$pgkeep_file"}" 2>/dev/null <"$pgkeep_marker"
}

pgkeep_compare() {
    IFS= read -r pgkeep_magic && IFS= read -r pgkeep_boot && IFS= read -r pgkeep_words || return 1
    IFS= read -r pgkeep_home && IFS= read -r pgkeep_folder && IFS= read -r pgkeep_stamps || return 1
    read -r pgkeep_now </proc/sys/kernel/random/boot_id || return 1
    [ "$pgkeep_magic" = pgkeep-archived-2 ] && [ "$pgkeep_boot" = "$pgkeep_now" ] || return 1
    [ "$pgkeep_words" = "$1" ] && [ "$pgkeep_home" = "${HOME-}" ] || return 1
    case "$(pwd -P; set)" in
        *"
PGKEEP_"*) return 1 ;;
        "$pgkeep_folder
"*) ;;
        *) return 1 ;;
    esac
    set -- "$pgkeep_file"
    while IFS='|' read -r pgkeep_stamp pgkeep_path && [ "$pgkeep_path" ]; do
        set -- "$@" "$pgkeep_path"
        pgkeep_stamps="$pgkeep_stamps
$pgkeep_stamp"
    done
    [ "$pgkeep_stamp" = . ] && [ "$(LC_ALL=C stat -L -c '%d %i %s %.9Y %.9Z' -- "$@")" = "$pgkeep_stamps" ]
}

pgkeep_archived "$@" && exit 0
exec "$@"
echo "error: archive_command names no program to run; see: pgkeep init" >&2 # exec of nothing comes here
exit 2

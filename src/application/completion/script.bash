# Completion of {name} for Bash. Load it once:  eval "$({name} -sc install=bash)"
_{function}_complete() {
    local program=$1 line=${COMP_LINE:0:COMP_POINT} typed=$2 start before candidate
    case $program in '~/'*) program=$HOME/${program#'~/'} ;; esac
    type -P -- "$program" >/dev/null || program={program}
    COMPREPLY=()
    # Bash cuts a word at = and :, and its last piece alone is replaced. What stands before it in the same word is
    # taken away from every candidate.
    start=${line%"$typed"}
    before=${start##*[[:space:]\'\"]}
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        candidate=${candidate#"$before"}
        case $start in
        *[\'\"]) candidate=${candidate% } ;;
        *)
            case ${candidate% } in
            *[\;\&\|\<\>\(\)\$\`\\\"\'\ \*\?\#\!{}]*)
                if [[ $candidate == *' ' ]]; then
                    printf -v candidate '%q ' "${candidate% }"
                else
                    printf -v candidate '%q' "$candidate"
                fi
                ;;
            esac
            ;;
        esac
        COMPREPLY[${#COMPREPLY[@]}]=$candidate
    done < <(COMP_LINE=$line COMP_POINT=${#line} "$program" -sc query=candidates 2>/dev/null)
}
complete -o nospace -o bashdefault -o default -F _{function}_complete {name}

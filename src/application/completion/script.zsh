#compdef {name}
# Completion of {name} for Zsh. Load it once:  eval "$({name} -sc install=zsh)"
_{function}_complete() {
    local program=${~words[1]} line candidate about
    local -a open open_about whole whole_about
    line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    (( $+commands[$program] )) || [[ -x $program ]] || program={program}
    while IFS=$'\t' read -r candidate about; do
        if [[ $candidate == *' ' ]]; then
            whole+=("${candidate% }")
            whole_about+=("${candidate% }${about:+  -- $about}")
        else
            open+=("$candidate")
            open_about+=("$candidate${about:+  -- $about}")
        fi
    done < <(COMP_LINE=$line COMP_POINT=${#line} $program -sc query=candidates 2>/dev/null)
    (( $#open )) && compadd -l -S '' -d open_about -a open
    (( $#whole )) && compadd -l -d whole_about -a whole
    (( $#open + $#whole ))
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i -D }
compdef _{function}_complete {name}
